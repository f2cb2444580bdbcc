"""The table of spans in docs/observability.md, compared with the spans that a real system has made."""

import asyncio
import json
import os
import re
import secrets
import urllib.request
from pathlib import Path
from typing import NamedTuple

from schemas import subjects
from streams.roles.drivers import connected
from tests.support.program.chunk_contexts import traces_of
from tests.support.program.installation import Installation, until
from tests.support.servers.jaeger import Seen, Traces

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
WORDS = {
    "STAGE": "(chunk|compress|encrypt|merkle|store)",
    "EVENT": "[A-Z][A-Za-z]+",
    "COMMAND": "[a-z_]+",
    "METHOD": "[A-Z]+",
    "ROUTE": r"(/\S*|unknown)",
}
"""The words in capitals of the table."""
RARE = {"publish chunk.redriven"}
"""tests/unit/test_chunk_traces.py makes it: no healthy system drives a chunk again."""


class Row(NamedTuple):
    """One row of the table. always, often: names of attributes."""

    span: str
    kind: str
    always: set[str]
    often: set[str]

    def fits(self, name: str) -> bool:
        form = re.escape(self.span)
        for word, pattern in WORDS.items():
            form = re.sub(rf"\b{word}\b", lambda _, one=pattern: one, form)
        return re.fullmatch(form, name) is not None


def table() -> list[Row]:
    text = PAGE.read_text().partition("### Every span")[2].partition("\n#")[0]
    shared = dict(re.findall(r"^- (\w+): (.*)$", text, re.MULTILINE))
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            name, kind, _, always, often = cells
            rows.append(Row(name.strip("`"), kind, _names(always, shared), _names(often, shared)))
    return rows


def _names(cell: str, shared: dict[str, str]) -> set[str]:
    """The attributes in a cell; a bare word stands for those of its line above the table."""
    whole = " ".join([cell, *(shared[word] for word in shared if word in cell.split(", "))])
    return set(re.findall(r"`([^`]+)`", whole))


def row_of(span: Seen, rows: list[Row]) -> Row:
    fitting = [row for row in rows if row.fits(span.name)]
    assert len(fitting) == 1, f"{span.name}: {fitting}"
    return fitting[0]


def work(system: Installation, traces: Traces, folder: Path) -> None:
    """Everything that makes a span of its own."""
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.otlp_url}
    source = folder / "source"
    source.write_bytes(os.urandom(600_000))
    system.record(source, "every", CHUNK_SIZE_MB="0.25", **on)
    for command in (
        ("replay", "every"),
        ("export", "every", "--out", folder / "out"),
        ("projections", "rebuild"),
        ("scrub", "every"),
        ("sessions", "hold", "every", "--reason", "case-7"),
    ):
        done = system(*command, **on)
        assert done.status == 0, str(done)
    url = json.loads((system.data / "run.json").read_bytes())["api_url"]
    headers = {"Authorization": f"Bearer {system.credential()}"}
    urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1/sessions/every", headers=headers)).close()
    above = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"

    async def hopeless() -> None:
        async with connected(system.nats_url, "test") as jet:
            subject = subjects.chunk(subjects.CHUNKED, "hopeless-2")
            await jet.publish(subject, b"no event", {"traceparent": above})

    asyncio.run(hopeless())


def test_every_span_that_occurs_is_in_the_table_and_the_other_way_round(
    system: Installation, traces: Traces, tmp_path: Path
) -> None:
    """Breaks: who writes an alert or a search over traces believes a page that is not true."""
    rows = table()
    assert len(rows) > 10
    work(system, traces, tmp_path)
    assert traces_of(system, "every", subjects.STORED)

    def missing() -> set[str]:
        names = {span.name for span in traces.all_spans()}
        return {row.span for row in rows if not any(map(row.fits, names))} - RARE

    until(lambda: not missing(), "every row of the table")
    wrong = []
    for span in traces.all_spans():
        row, facts = row_of(span, rows), {name for name in span.facts if not name.startswith("@jaeger")}
        lacks = set() if span.error else row.always - facts
        strange = facts - row.always - row.often - {"error.type"}
        if span.kind != row.kind or lacks or strange:
            wrong.append((span.name, span.kind, lacks, strange))
    assert wrong == []
