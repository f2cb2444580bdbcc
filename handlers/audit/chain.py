"""Links audit entries to a chain, and finds every place where a chain was broken (format.md §16).

1. Each entry holds H of the line before and the next number. `Walk` says where a line was changed, left out,
   doubled or put in.
2. The time of the chain never goes back. If a clock is set back by more than STEP_BACK_US, the time goes on
   from where it was: no period that is measured in it gets longer.
3. Smaller steps back are the difference of clocks of several machines. The time stands still until they are
   made up.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.errors import EvidenceFalse
from schemas.events.audit import Act, AuditEntry, Head, head_of, read_entry, write_entry
from schemas.format.digest import h

STEP_BACK_US = 5_000_000
"""Clocks of machines that keep time differ by less."""
FINDINGS_MOST = 1000
"""A wholly foreign file would give as many as it has lines."""


class Finding(NamedTuple):
    """One fault of a chain. number: the entry at which it shows."""

    code: str
    number: int
    text: str


def link(acts: Iterable[Act], head: Head, at_us: int) -> tuple[list[bytes], Head]:
    """Return the lines of entries that continue a chain, and its new end. at_us: the writer's clock."""
    lines = []
    for act in acts:
        time_us, set_back_us = chain_time(head, at_us)
        entry = AuditEntry(
            **act.model_dump(),
            number=head.number + 1,
            prev=head.digest,
            at_us=at_us,
            time_us=time_us,
            set_back_us=set_back_us,
        )
        line = write_entry(entry)
        lines.append(line)
        head = head_of(line, entry)
    return lines, head


def chain_time(head: Head, at_us: int) -> tuple[int, int]:
    """Return time of the chain and sum of steps back, after an entry at `at_us` of a clock."""
    if head.number == 0:
        return at_us, 0
    time_us = at_us + head.set_back_us
    if time_us < head.time_us - STEP_BACK_US:
        return head.time_us, head.time_us - at_us
    return max(time_us, head.time_us), head.set_back_us


def after(head: Head, line: bytes) -> Head:
    """Return the end of the chain after a line, which may be no entry: a writer goes on behind it, too."""
    try:
        return head_of(line, read_entry(line))
    except EvidenceFalse:
        return Head(head.number + 1, h(line), head.time_us, head.set_back_us)


@dataclass(slots=True)
class Walk:
    """Checks a chain line by line, from its first entry or from `head` on. Memory does not grow with it."""

    head: Head = field(default_factory=Head)
    findings: list[Finding] = field(default_factory=list)
    signed: Mapping[int, Collection[bytes]] = field(default_factory=dict)
    """H of entries that signed heads name, by number: the chain must contain them."""
    met: int = 0
    """The greatest number of `signed` that was found as it was signed."""

    def take(self, line: bytes) -> AuditEntry | None:
        """Check the next line; None: it is no entry."""
        before, wanted = self.head, self.head.number + 1
        try:
            entry = read_entry(line)
        except EvidenceFalse as error:
            self.head = after(before, line)
            self._add("audit.form", wanted, error.message)
            return None
        self.head = head_of(line, entry)
        if entry.number > wanted:
            self._add("audit.hole", entry.number, f"entries {wanted} to {entry.number - 1} are missing")
        elif entry.number < wanted:
            self._add("audit.fork", entry.number, f"entry {entry.number} stands twice, or out of order")
        elif entry.prev != before.digest:
            self._add("audit.chain", entry.number, "the entry before it is not the one that it names")
        elif (entry.time_us, entry.set_back_us) != chain_time(before, entry.at_us):
            self._add("audit.time", entry.number, "its time does not follow from the entry before")
        if any(digest != self.head.digest for digest in self.signed.get(entry.number, ())):
            self._add("audit.head", entry.number, "it is not the entry that was signed")
        elif entry.number in self.signed:
            self.met = max(self.met, entry.number)
        return entry

    def end(self) -> None:
        """Check that the chain is as long as the signed heads say."""
        longest = max(self.signed, default=0)
        if longest > self.head.number:
            text = f"a signed head names entry {longest}; the chain ends at {self.head.number}"
            self._add("audit.cut", longest, text)

    def _add(self, code: str, number: int, text: str) -> None:
        if len(self.findings) < FINDINGS_MOST:
            self.findings.append(Finding(code, number, text))
