"""Attacks both verifiers with restructured evidence, thousands of times, and prints what they answered.

    just fuzz [ATTACKS [FIRST_SEED]]

Exit 0: nothing crashed, nothing was called true that is not, and both verifiers were of one mind.
"""

import importlib
import sys
import time
import traceback
from collections import Counter
from multiprocessing import Pool, cpu_count
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "independent"))

from tests.support.evidence.hostile_drafts import drafts  # noqa: E402
from tests.support.evidence.hostile_evidence import attack  # noqa: E402
from tests.support.evidence.hostile_verdicts import Reader, judge, ours  # noqa: E402

BATCH = 250
ATTACKS = 20_000


def batch(first: int) -> tuple[Counter[int], list[str]]:
    """Verdicts by exit status, and what is wrong."""
    bases, reader = drafts(), Reader(importlib.import_module("reader"))
    verdicts: Counter[int] = Counter()
    wrong = []
    for seed in range(first, first + BATCH):
        try:
            name, draft = attack(seed, bases)
            told = judge(bases[name], draft, reader)
            verdicts[ours(draft)[0]] += 1
        except Exception:  # the very thing that is looked for
            told = traceback.format_exc()
        if told:
            wrong.append(f"seed {seed}: {told}")
    reader.close()
    return verdicts, wrong


def main(attacks: int = ATTACKS, first: int = 0) -> int:
    started, verdicts, wrong = time.monotonic(), Counter[int](), list[str]()
    with Pool(min(2, cpu_count())) as pool:
        for counted, told in pool.imap_unordered(batch, range(first, first + attacks, BATCH)):
            verdicts += counted
            wrong += told
            for line in told:
                print(line, flush=True)
    figures = ", ".join(f"{count} exit {code}" for code, count in sorted(verdicts.items()))
    print(f"{verdicts.total()} attacks in {time.monotonic() - started:.0f} s: {figures}; {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
