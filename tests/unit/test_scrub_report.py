"""The alarms of the scrub on their way into an audit chain that does not take them."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas.access import Caller
from schemas.config.backoff import Backoff
from schemas.errors import LucidError, Unavailable
from streams.event_store.audit_pages import AuditQuery
from streams.evidence import scrub_report
from streams.evidence.scrub_progress import ScrubProgress
from streams.evidence.scrub_report import SEARCHED_AGAIN, SEARCHED_PAGES, ScrubReport
from streams.evidence.session_proof import Checked, Fault

SESSIONS = 50


@dataclass
class Chain:
    """An audit chain of so many pages. loses: an entry that fails is in it all the same."""

    is_away: bool = True
    loses: bool = False
    pages: int = 100
    searched: int = 0
    tried: int = 0
    entries: list[dict[str, Any]] = field(default_factory=list)
    jet: Any = None

    async def noted(self, _: Caller, __: str, session: str, error: LucidError) -> None:
        self.tried += 1
        if not self.is_away or not self.loses:
            entry = {"session": session, "code": error.code, "detail": error.message, "at_us": 5}
            self.entries.append(entry)
        if self.is_away:
            raise Unavailable("the chain takes no entry", code="audit.away")

    async def page(self, _: object, query: AuditQuery) -> dict[str, Any]:
        self.searched += 1
        left = self.pages - query.after
        return {"entries": self.entries, "next": query.after + 1 if left else 0}


class Place:
    """A state on a disk that counts."""

    writes = 0

    def take(self) -> bool:
        return True

    def read(self) -> bytes | None:
        return None

    def write(self, _: bytes) -> None:
        self.writes += 1

    def release(self) -> None:
        pass


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Chain:
    found = Chain()
    monkeypatch.setattr(scrub_report, "page", found.page)
    return found


def reported(chain: Any) -> tuple[ScrubReport, Place]:
    """A report with one alarm that the chain lacks."""
    place = Place()
    progress = ScrubProgress(place, lambda: 5)
    fault = Fault("chunk 1", "chunk.digest", "is not what was sealed", "alarm")
    progress.count(Checked(1, 0, 0, fault, fault.place), "demo-01", placed=False)
    return ScrubReport(progress, chain, lambda: 5), place


async def test_a_chain_that_takes_no_entry_costs_one_try_and_not_one_for_each_session(chain: Chain) -> None:
    """Breaks: the audit chain is damaged, and each session waits for a search and two writes of the state."""
    report, place = reported(chain)
    for _ in range(SESSIONS):
        await report.note()
    assert (chain.tried, chain.searched, place.writes) == (1, SEARCHED_PAGES, 2)


async def test_an_alarm_is_in_the_chain_once_when_it_takes_entries_again(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a false piece of evidence is not in the chain, or is there twice, after an outage."""
    monkeypatch.setattr(scrub_report, "PAUSES", Backoff(0, 0))
    report, _ = reported(chain)
    await report.note()
    assert not report.progress.state.alarms[0].noted
    chain.is_away = False
    await report.note()
    assert report.progress.state.alarms[0].noted
    assert chain.searched == SEARCHED_PAGES + SEARCHED_AGAIN
    assert len(chain.entries) == 1, "the entry that seemed to fail was there"


async def test_an_entry_that_was_lost_is_written_again(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: an outage of the chain swallows an alarm."""
    monkeypatch.setattr(scrub_report, "PAUSES", Backoff(0, 0))
    chain.loses = True
    report, _ = reported(chain)
    await report.note()
    chain.is_away = False
    await report.note()
    assert (chain.tried, len(chain.entries)) == (2, 1)
