"""Proves the streams beside the recordings: each message can be read, and is an event.

1. A stream's last sequence never falls. One that is lower than before was cut: the server dropped damaged
   blocks, or a backup was restored.
2. A hole is judged by the leader, message by message or subject by subject: a replica that lags, and a
   session that is destroyed meanwhile, are no finding.
3. The audit chain must hold the entries of its signed heads, and the last entry of the pass before.
4. Messages that come during the check are not compared. A subject is counted between two looks at its last
   message: new messages neither look like a hole nor hide one.
5. A stream is read in one go: after a kill it is read from its beginning. Fragments are read with their
   session (session_proof.py).
6. Nothing here can be repaired: these events have no other source.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from handlers.audit.chain import Walk
from handlers.audit.signed_head import signed_entries
from handlers.crypto.signatures import verify_signature
from handlers.evidence.stream_checks import UNCHANGED, StreamCheck
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.scrub import ChainMark
from schemas.format import dsse
from schemas.format.audit_head import AuditHead
from schemas.ports import Jet, Signers
from schemas.ports.messages import Message
from streams.event_store.audit_pages import signed_heads
from streams.evidence.scrub_pace import ScrubPace
from streams.evidence.session_proof import Checked, Fault

PROVEN = (subjects.CHUNKS, subjects.LIFECYCLE, subjects.DEAD, subjects.AUDIT)
STEPS = (
    subjects.RECORDED,
    subjects.CHUNKED,
    subjects.COMPRESSED,
    subjects.ENCRYPTED,
    subjects.PROVEN,
    subjects.STORED,
    subjects.REDRIVEN,
)
MESSAGES, BATCH_BYTES = 256, 1 << 20
"""Of one read."""
MESSAGE_BYTES = 4096
"""A message counts at least so much: its check costs more than its bytes."""
UNKNOWN = 1 << 62
"""The sequence of a last message that cannot be read: all others are."""
COUNTED_MOST = 5
"""How often a subject that goes on meanwhile is counted again."""
CONFIRMED_MOST = 1000
"""Missing messages that the leader is asked about."""
TOLD_MOST = 200
"""Sessions with a hole that are named."""
T = TypeVar("T")


class Looked(NamedTuple):
    """One look at a stream. session: empty if it is about the stream."""

    session: str
    checked: Checked


def end_of(stream: str) -> str:
    """The place of the alarm about a stream that was cut."""
    return f"end of {stream}"


def events_in(stream: str) -> str:
    """The place of the alarms about its messages."""
    return f"events in {stream}"


def places_of(stream: str) -> tuple[str, ...]:
    """Every place of an alarm that one check of a stream looks at."""
    chain = ("audit chain",) if stream == subjects.AUDIT else ()
    return (f"messages of {stream}", f"form of {stream}", events_in(stream), *chain)


@dataclass(slots=True)
class StreamProof:
    """The check of one stream. chain: an entry that AUDIT must hold; after the check, its last one."""

    jet: Jet
    signers: Signers
    pace: ScrubPace
    disk: Executor
    chain: ChainMark = field(default_factory=ChainMark)

    async def check(self, stream: str) -> AsyncIterator[Looked]:
        """Read the stream to the end that it has now."""
        info, place = await self.jet.info(stream), events_in(stream)
        check = StreamCheck(stream, await self._walk(stream))
        for wanted in _filters(stream):
            check.expect(await self.jet.subject_counts(stream, wanted))
        seq, more = (1 if stream in UNCHANGED else max(info.first_seq, 1)), True
        while more and seq <= info.last_seq:
            messages, _ = await self.jet.batch(stream, ">", seq, MESSAGES, BATCH_BYTES)
            messages = [one for one in messages if one.seq <= info.last_seq]
            more = bool(messages)
            if more:
                await self.pace.spend(sum(max(one.size, MESSAGE_BYTES) for one in messages))
                await self._off_loop(partial(check.take, messages))
                seq = messages[-1].seq + 1
                size = sum(one.size for one in messages)
                yield Looked("", Checked(0, 0, size, messages=len(messages)))
        check.end(info.last_seq)
        async for fault in self._faults(check):
            yield Looked("", Checked(0, 0, 0, fault, fault.place))
        async for session, text in self._short(check):
            yield Looked(session, Checked(0, 0, 0, Fault(place, "stream.hole", text, "alarm"), place))
        if stream == subjects.AUDIT and not check.walk.findings:
            self.chain = ChainMark(number=check.walk.head.number, digest=check.walk.head.digest.hex())

    async def _walk(self, stream: str) -> Walk:
        walk = Walk()
        if stream == subjects.AUDIT:
            signed = signed_entries(self._own(await signed_heads(self.jet)))
            if self.chain.number:
                signed.setdefault(self.chain.number, set()).add(bytes.fromhex(self.chain.digest))
            walk.signed = signed
        return walk

    def _own(self, envelopes: list[bytes]) -> list[AuditHead]:
        """The heads that signers of this installation have signed."""
        heads = []
        for raw in envelopes:
            with suppress(Rejected):
                parsed = dsse.parse(raw, dsse.AUDIT_HEAD)
                signer = self.signers.of(parsed.keyid)
                if signer is not None and verify_signature(signer.public, parsed.signed, parsed.sig):
                    heads.append(AuditHead.within(parsed))
        return heads

    async def _faults(self, check: StreamCheck) -> AsyncIterator[Fault]:
        """The faults of a stream as a whole."""
        stream, chain = check.stream, check.walk.findings
        missing: list[int] = []
        for hole in check.holes:
            missing += hole[: CONFIRMED_MOST - len(missing)]
        if missing:
            there = await self.jet.get_many(stream, missing)
            missing = [seq for seq in missing if seq not in there]
        if missing:
            text = f"{len(missing)} messages of {stream} cannot be read; the first is message {missing[0]}"
            yield Fault(f"messages of {stream}", "stream.hole", text, "alarm")
        if check.first_malformed is not None:
            first = check.first_malformed
            text = f"{check.malformed} messages of {stream} are no events; the first is {_named(first)}"
            yield Fault(f"form of {stream}", "stream.malformed", text, "alarm")
        if chain:
            more = f"; {len(chain) - 1} more findings" if len(chain) > 1 else ""
            text = f"the audit chain, entry {chain[0].number}: {chain[0].text}{more}"
            yield Fault("audit chain", chain[0].code, text, "alarm")

    async def _short(self, check: StreamCheck) -> AsyncIterator[tuple[str, str]]:
        """The sessions that lack messages, and how many."""
        told = 0
        if not check.short_buckets:
            return
        for wanted in _filters(check.stream):
            for subject in await self.jet.subject_counts(check.stream, wanted):
                if not check.is_short(subject) or told == TOLD_MOST:
                    continue
                await self.pace.spend(MESSAGE_BYTES)
                counted, read = await self._compared(check.stream, subject)
                if read < counted:
                    told += 1
                    step = subjects.step_of(subject)
                    yield subjects.session_of(subject), f"{read} of {counted} messages `{step}` can be read"

    async def _compared(self, stream: str, subject: str) -> tuple[int, int]:
        """How many messages the server counts, and how many can be read. Asked twice before they differ.

        (0, 0): a subject that never rests has no exact count. The next pass compares it.
        """
        counted = read = 0
        for _ in range(2):
            counted, last_seq = await self._counted(stream, subject)
            read = await self._read_to(stream, subject, last_seq)
            if read >= counted:
                break
        return counted, read

    async def _counted(self, stream: str, subject: str) -> tuple[int, int]:
        """The server's count of a subject, and the sequence up to which it counts; no count: (0, 0)."""
        before = await self.jet.last(stream, subject)
        for _ in range(COUNTED_MOST):
            counted = (await self.jet.subject_counts(stream, subject)).get(subject, 0)
            last = await self.jet.last(stream, subject)
            seqs = [one.seq if one else UNKNOWN for one in (before, last)]
            if seqs[0] == seqs[1]:
                return counted, seqs[0]
            before = last
        return 0, 0

    async def _read_to(self, stream: str, subject: str, last_seq: int) -> int:
        """How many messages of a subject can be read up to `last_seq`, at the rate of the scrub."""
        read = size = 0
        async for message in self.jet.read_all(stream, subject):
            if message.seq > last_seq:
                break
            read, size = read + 1, size + max(message.size, MESSAGE_BYTES)
            if size >= BATCH_BYTES:
                await self.pace.spend(size)
                size = 0
        await self.pace.spend(size)
        return read

    async def _off_loop(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.disk, self.pace.measured, work)


def _filters(stream: str) -> list[str]:
    """Filters that split the subjects of a stream; empty: its holes show without a count."""
    if stream == subjects.CHUNKS:
        return [subjects.chunk_filter(step, p) for step in STEPS for p in range(subjects.PARTITIONS)]
    if stream == subjects.DEAD:
        return [f"lucid.dead.*.{p}.*" for p in range(subjects.PARTITIONS)]
    return []


def _named(message: Message) -> str:
    return f"message {message.seq} under {message.subject[:200]}"
