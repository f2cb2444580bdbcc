"""What the history says: which session the host asked for, and where each seal began.

1. Line 1 is the host's own signed request; every manifest must name the same session, host and settings.
2. Each seal covers the lines up to its own; later lines are counted.

Source: docs/format.md §11 and §13.
"""

from __future__ import annotations

from typing import Any

import reader_shapes as shapes
from reader_crypto import CREATE_PREFIX, Bad, fingerprint, h, signature_is_good
from reader_keyless import Report

ASKED = ("session", "host", "host_key", "counter", "prev_genesis", "settings")
Json = dict[str, Any]


def read_lines(raw: bytes) -> tuple[list[bytes], list[Json]]:
    """Return lines and events; raises Bad history.line."""
    if not raw.endswith(b"\n"):
        raise Bad("history.line", "the last line does not end")
    lines = raw.split(b"\n")[:-1]
    if any(len(line) >= shapes.MAX_HISTORY_LINE for line in lines):
        raise Bad("history.line", f"a line is longer than {shapes.MAX_HISTORY_LINE} bytes")
    events = [shapes.parse_canonical(line, "history.line") for line in lines]
    if not all(isinstance(event, dict) and isinstance(event.get("type"), str) for event in events):
        raise Bad("history.line", "a line is no object with a type")
    return lines, events


def check_lines(lines: list[bytes], events: list[Json], manifests: list[Json], report: Report) -> int:
    """Check what each seal covers of the history; return the number of lines after the last seal's."""
    _created(events[0], manifests, report)
    before = 0
    for manifest in manifests:
        last, place = manifest["lifecycle"]["last"], f"history line {manifest['lifecycle']['last']}"
        report.need(before < last, "history.order", place, "an earlier seal covers as much")
        before = last
        if not report.need(last <= len(lines), "history.short", place, "the history ends before it"):
            continue
        digest = h(b"".join(line + b"\n" for line in lines[:last])).hex()
        same = digest == manifest["lifecycle"]["digest"]
        report.need(same, "history.digest", place, "the history is another")
        started = {
            "type": "SealStarted",
            "seal_no": manifest["seal_no"],
            "sealed_us": manifest["sealed_us"],
            "signer": fingerprint(bytes.fromhex(manifest["signer"]["key"])),
            "n": len(manifest["chunks"]),
        }
        report.need(_holds(events[last - 1], started), "history.seal", place, "it does not start this seal")
    for number, event in enumerate(events[before:], before + 1):
        if event["type"] == "SealStarted":
            report.note("history.later_seal", f"history line {number} starts a later seal, which is not here")
    return len(lines) - max((m["lifecycle"]["last"] for m in manifests), default=0)


def _created(event: Json, manifests: list[Json], report: Report) -> None:
    place = "history line 1"
    if event["type"] != "Created" or any(name not in event for name in ASKED):
        report.find("history.created", place, "it does not create a session")
        return
    asked = {name: event[name] for name in ASKED}
    try:
        shapes.CREATED({"host_key": event["host_key"], "request": event.get("request")}, "history")
        message = CREATE_PREFIX + shapes.jcs(asked)
        key, signature = bytes.fromhex(event["host_key"]), bytes.fromhex(event["request"])
        good = signature_is_good(key, message, signature)
    except Bad:
        good = False
    report.need(good, "history.request", place, "the host did not sign this request")
    for m in manifests:
        host = m["host"]
        named = {
            "session": m["session"], "uid": m["uid"], "host": host["name"], "host_key": host["key"],
            "counter": host["counter"], "prev_genesis": host["prev_genesis"],
        }  # fmt: skip
        same = _holds(event, named) and _holds(event["settings"], m["settings"])
        report.need(same, "history.session", place, "the host asked for another session or other settings")


def _holds(event: Any, wanted: Json) -> bool:
    """Whether every wanted member is there, of the same type and value."""
    return isinstance(event, dict) and all(
        type(event.get(name)) is type(value) and event[name] == value for name, value in wanted.items()
    )


class Silences:
    """Where track 0 was silent for more than two ticks."""

    LIMIT_US = 20_000_000

    def __init__(self) -> None:
        self.longest = (0, 0)
        self.times = 0

    def look(self, from_us: int, to_us: int, seq: int) -> None:
        if to_us - from_us > self.LIMIT_US:
            self.times += 1
            self.longest = max(self.longest, (to_us - from_us, seq))

    def chunks(self, manifest: Json, within: bool) -> None:
        """Between chunks; within: the mean inside of one, too, for without keys no more is known."""
        before: Json | None = None
        for chunk in (c for c in manifest["chunks"] if c["track"] == 0):
            if before is not None and chunk["first_seq"] == before["last_seq"] + 1:
                self.look(before["last_us"], chunk["first_us"], chunk["first_seq"])
            steps, span = chunk["last_seq"] - chunk["first_seq"], chunk["last_us"] - chunk["first_us"]
            if within and steps > 0:
                self.look(0, -(-span // steps), chunk["last_seq"])
            before = chunk

    def note(self, report: Report) -> None:
        if self.times:
            told = f"the host was silent {self.times} times, for {self.longest[0] / 1e6:.1f} s at the longest"
            report.note("host.silent", f"{told}, before seq {self.longest[1]}")


def on_signers_word(manifest: Json, opened: bool) -> list[str]:
    """The members for which nothing vouches but the signature (§13)."""
    told = ["host.attested", "signer.name", "started_us"]
    ended = manifest["end"] != "final"
    told += ["ended_us"] if ended else []
    told += ["sealed_us"]
    told += ["end", "reason", "ending"] if ended else []
    told += ["chunks.build"] if manifest["chunks"] else []
    told += ["gaps.by", "gaps.reason"] if manifest["gaps"] else []
    told += ["host.intake"] if not manifest["tracks"] and not opened else []
    return [*told, "equivocations", *([] if opened else ["contents"])]
