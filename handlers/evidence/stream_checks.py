"""Checks the messages of one stream as they come: holes, form, and the audit chain. Pure.

1. No message is ever removed from LIFECYCLE and AUDIT: there a missing sequence is a hole.
2. Other streams lose the messages of destroyed and released sessions. There a hole shows as a subject with
   fewer messages than the server counts. Subjects share BUCKETS counts: memory does not grow with them.
3. An event of a newer version is no finding.
"""

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from pydantic import ValidationError

from handlers.audit.chain import Walk
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import Dead
from schemas.events.host import read_host_event
from schemas.events.session import EVENT
from schemas.events.upcast import read_chunk_event
from schemas.ports.messages import Message

BUCKETS = 1 << 16
HOLES_MOST = 100
UNCHANGED = (subjects.LIFECYCLE, subjects.AUDIT)
"""Streams from which nothing is removed."""
LIFECYCLE_LOG, HOST_LOGS = subjects.lifecycle("_")[:-1], ("lucid.hosts.", "lucid.counters.")
NEWER = ("union_tag_invalid",)
"""Errors of pydantic for an event of a newer version."""


def bucket_of(subject: str) -> int:
    """Return the bucket of a subject."""
    return crc32(subject.encode()) % BUCKETS


def _counts() -> "array[int]":
    return array("q", bytes(8 * BUCKETS))


@dataclass(slots=True)
class StreamCheck:
    """One check of one stream. walk: of the audit chain; other streams do not use it."""

    stream: str
    walk: Walk = field(default_factory=Walk)
    next_seq: int = 1
    holes: list[range] = field(default_factory=list)
    """Sequences that did not come, in streams from which nothing is removed; at most HOLES_MOST runs."""
    malformed: int = 0
    first_malformed: Message | None = None
    _missing: "array[int]" = field(default_factory=_counts)
    """By bucket: messages that the server counts, without those that came."""

    def expect(self, counts: Mapping[str, int]) -> None:
        """Take the server's counts, by subject."""
        for subject, count in counts.items():
            self._missing[bucket_of(subject)] += count

    def take(self, messages: Sequence[Message]) -> None:
        """Check the next messages."""
        for message in messages:
            self._follow(message.seq)
            self._missing[bucket_of(message.subject)] -= 1
            try:
                self._read(message)
            except Rejected as error:
                if error.code != "event.unknown":
                    self.malformed += 1
                    self.first_malformed = self.first_malformed or message

    def end(self, last_seq: int) -> None:
        """The stream had this end when the check began."""
        self._follow(last_seq + 1)
        if self.stream == subjects.AUDIT:
            self.walk.end()

    def is_short(self, subject: str) -> bool:
        """Whether a message of this subject, or of another one in its bucket, did not come."""
        return self._missing[bucket_of(subject)] > 0

    @property
    def short_buckets(self) -> int:
        """How many buckets lack messages."""
        return sum(count > 0 for count in self._missing)

    def _follow(self, seq: int) -> None:
        if self.stream in UNCHANGED and seq > self.next_seq and len(self.holes) < HOLES_MOST:
            self.holes.append(range(self.next_seq, seq))
        self.next_seq = max(self.next_seq, seq + 1)

    def _read(self, message: Message) -> None:
        """Raises Rejected (event.malformed, event.unknown)."""
        if self.stream == subjects.AUDIT:
            if message.subject == subjects.AUDIT_CHAIN:
                for line in bytes(message.data).split(b"\n"):
                    self.walk.take(line)
            return
        if self.stream == subjects.LIFECYCLE:
            _read_log(message)
            return
        event = read_chunk_event(message.data)
        if isinstance(event, Dead) != (self.stream == subjects.DEAD):
            raise Rejected("an event of another stream", code="event.malformed")


def _read_log(message: Message) -> None:
    """Raises Rejected (event.malformed)."""
    try:
        if message.subject.startswith(LIFECYCLE_LOG):
            EVENT.validate_json(message.data)
        elif message.subject.startswith(HOST_LOGS):
            read_host_event(message.data)
        else:
            json.loads(message.data)
    except ValidationError as error:
        code = "event.unknown" if error.errors()[0]["type"] in NEWER else "event.malformed"
        raise Rejected("not an event", code=code) from None
    except (ValueError, RecursionError):
        raise Rejected("not an event", code="event.malformed") from None
