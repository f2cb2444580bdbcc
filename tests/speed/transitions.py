"""How many lifecycle transitions a second a system decides, over many sessions: prints one line of JSON.

    python -m tests.speed.transitions [SESSIONS [SECONDS [AT_ONCE]]]

1. This process asks; conductor, worker and NATS server run in processes of their own, as `lucid up` has them.
2. Each session is paused and resumed again and again. A pause is two transitions, the second one the
   conductor's own; a resume is one. Only events in the log count.
3. `waits_ms`: from asking to the answer.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

from infra.jetstream import Message
from schemas import subjects
from streams.control.client import call
from tests.support.pipeline.prepared import Prepared
from tests.support.pipeline.processes import Processes, processes

SESSIONS, SECONDS, AT_ONCE = 240, 20.0, 64


async def measure(system: Processes, sessions: list[str], seconds: float, at_once: int) -> dict[str, object]:
    """Pause and resume all sessions for so long."""
    waits_ms: list[float] = []
    turns = asyncio.Semaphore(at_once)
    last = await system.jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
    before, began_s = last.seq if last else 0, time.monotonic()
    used = {name: psutil.Process(pid).cpu_times() for name, pid in system.victims.items()}
    end_s, moved = began_s + seconds, 0
    paused = {session: asyncio.Event() for session in sessions}

    async def ask(command: str, session: str) -> None:
        async with turns:
            asked_s = time.monotonic()
            await call(system.jet, command, {"session": session})
            waits_ms.append((time.monotonic() - asked_s) * 1e3)

    async def live(session: str) -> None:
        while time.monotonic() < end_s:
            paused[session].clear()
            await ask("pause", session)
            await paused[session].wait()
            await ask("resume", session)

    async def follow() -> None:
        nonlocal moved
        async for item in system.jet.follow(subjects.LIFECYCLE, [subjects.ALL_LIFECYCLE], before + 1):
            if isinstance(item, Message) and b'"type":"Transitioned"' in item.data:
                moved += 1
                if b'"to_state":"PAUSED"' in item.data:
                    paused[subjects.session_of(item.subject)].set()

    following = asyncio.create_task(follow())
    await asyncio.gather(*map(live, sessions))
    took_s = time.monotonic() - began_s
    following.cancel()
    cpu_s = {}
    for name, pid in system.victims.items():
        now, then = psutil.Process(pid).cpu_times(), used[name]
        cpu_s[name] = round(now.user + now.system - then.user - then.system, 1)
    waits_ms.sort()
    return {
        "sessions": len(sessions),
        "seconds": round(took_s, 1),
        "transitions": moved,
        "per_second": round(moved / took_s),
        "waits_ms": {f"p{q}": round(waits_ms[int(len(waits_ms) * q / 100)], 1) for q in (50, 99)},
        "cpu_s": cpu_s,
    }


async def main(count: int = SESSIONS, seconds: float = SECONDS, at_once: int = AT_ONCE) -> None:
    with tempfile.TemporaryDirectory(prefix="lucid-transitions-") as folder:
        sessions = [Prepared(f"many-{number:04}", number, [("data", 1)]) for number in range(1, count + 1)]
        async with processes(Path(folder)) as system:
            for start in range(0, count, 8):
                await asyncio.gather(*(system.begin(one) for one in sessions[start : start + 8]))
            names = [one.session for one in sessions]
            print(json.dumps(await measure(system, names, seconds, at_once)))


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*counts))
