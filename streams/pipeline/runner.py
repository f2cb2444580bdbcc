"""Runs the loop of every stage: take a message, do its job in a slot, publish the result, acknowledge.

1. A slot is taken before a message is asked for, and returned when the outcome is written.
2. The result is published before the input is acknowledged. After a crash between the two, or a lost ack,
   the input is redelivered, and the job makes the same bytes. The server drops the doubled result by its
   message id. After the window of the ids a doubled result is harmless: its readers fold by chunk index. So
   no ack waits for the server's answer, but the one after a dead letter: its chunk must not be tried again.
3. An outage (Unavailable, NoSpace, Conflict) is retried for ever; any other failure spends a retry. Messages
   without a retry left, and rejected messages, go to DEAD with the reason, and are then acknowledged. They
   are never ended with `term`, which the server does not confirm.
4. A job that exceeds its time naks its message, and its slot stays taken until the job returns. Slowness
   spends no retry and starts no second job: the next delivery waits for the same job, or finds its result.
5. The lease of every taken or fetched message is extended: no other reader gets it.
6. Hosts take turns at a stage's workers. Sessions with a slow codec have workers of their own, because any
   stage may have to compress again. Waiting for memory takes no worker.
7. On stop no new message is taken. Jobs that run are finished, or their messages handed back after STOP_S.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from schemas import subjects
from schemas.config.backoff import Backoff
from schemas.config.logs import bind, logger
from schemas.errors import LucidError, Rejected, Retryable
from schemas.events.chunk import StageEvent
from schemas.events.headers import TOO_LONG, headers, too_long
from schemas.ports import Consumer, Writer
from schemas.ports.messages import Message
from schemas.ports.metrics import NO_METER, trace_id_of
from streams.event_store.dead_letters import BUG, dead_letter, publish_dead_letter
from streams.pipeline.measurements import FAILURE, OUTAGE, SLOW, StageMeasurements
from streams.pipeline.stage_spans import StageSpans, carried
from streams.pipeline.tries import Tries
from streams.scheduling.fair_slots import FairSlots
from streams.scheduling.retry import ACKNOWLEDGE, JOB, retry

ACK_WAIT_S = 8.0
"""With 30 s a kill left a tail of 27 s. The lease of a long job is extended every third of this time."""
STOP_S = 8.0
"""How long running jobs may take after a stop."""

log = logger("lucid.runner")

Job = Callable[[Message], Awaitable[StageEvent | None]]
"""Does one stage's job for one message. None: there is no result."""


class Lane(NamedTuple):
    """The host that takes a turn, and its workers: those of slow codecs or the others."""

    host: str
    slow: bool = False


Wait = Callable[[Message], Awaitable[None]]
"""Waits for a job's memory, before it has a worker and before its time begins."""

Hook = Callable[[Message], None]


class Limits(NamedTuple):
    """The limits of one stage: {STAGE}_WORKERS, _BUFFER_SIZE, _TIMEOUT, _RETRY_COUNT, _MAX_MEMORY_MB."""

    workers: int
    """Jobs that run at once."""
    slots: int
    """Messages taken and not yet acknowledged."""
    timeout_s: float
    retries: int
    memory_bytes: int


def _by_session(message: Message) -> Lane:
    return Lane(subjects.session_of(message.subject))


@dataclass(frozen=True, slots=True)
class BoundStage:
    """One row of the stage table, bound to the jobs of one process."""

    verb: str
    makes: str
    """The step of the subject on which results are published."""
    job: Job
    wait: Wait | None = None
    lane: Callable[[Message], Lane] = _by_session
    on_extended: Hook | None = None
    """Called whenever the lease of a message is extended."""
    on_failed: Hook | None = None
    """Called before a message is handed back."""
    on_done: Hook | None = None
    """Called after the message of a job with an outcome is acknowledged."""
    on_dead: Hook | None = None
    """Called after the message of a dead letter is acknowledged."""


class Runner:
    """Runs one stage's job over its consumer until stopped."""

    def __init__(
        self,
        jet: Writer,
        reader: Consumer,
        stage: BoundStage,
        limits: Limits,
        measurements: StageMeasurements | None = None,
        tries: Tries | None = None,
    ) -> None:
        """tries: of all runners of this process."""
        self.verb = stage.verb
        self._tries = tries or Tries()
        self.done = self.failed = 0
        self._measured = measurements or StageMeasurements(NO_METER, stage.verb)
        self._spans = StageSpans(jet.tracer, stage.verb, lambda message: stage.lane(message).host)
        self._jet, self._reader, self._stage, self._limits = jet, reader, stage, limits
        self._slots = asyncio.Semaphore(limits.slots)
        self._workers = {False: FairSlots(limits.workers), True: FairSlots(max(1, limits.workers // 2))}
        """By whether the session's codec is slow."""
        self._busy: set[asyncio.Task[None]] = set()
        self._spent: Counter[int] = Counter()
        """Failures by stream sequence. The server's own count holds outages and kills as well."""
        self._started: dict[int, asyncio.Future[StageEvent | None]] = {}
        """Jobs by stream sequence, until a delivery has their outcome."""
        self._taken: dict[str, Message] = {}
        """Messages of running jobs, by ack subject."""

    @property
    def in_flight(self) -> int:
        """Messages that are taken and have no outcome yet."""
        return len(self._taken)

    @property
    def busy_workers(self) -> int:
        return sum(workers.used for workers in self._workers.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Take messages until `stop` is set, then finish the running jobs."""
        stopped = asyncio.ensure_future(stop.wait())
        taking = asyncio.create_task(self._take())
        extending = asyncio.create_task(self._extend_leases())
        try:
            await asyncio.wait({taking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            taking.cancel()
            await asyncio.wait({taking})
            if not taking.cancelled():
                taking.result()  # only a failure ends it
        finally:
            stopped.cancel()
            taking.cancel()
            busy = set(self._busy)
            if busy:
                await asyncio.wait(busy, timeout=STOP_S)
            for task in busy:
                task.cancel()  # then it hands its message back
            await asyncio.gather(*busy, return_exceptions=True)
            extending.cancel()
            await self._reader.close()
            log.info("stage_stopped", stage=self.verb, done=self.done, failed=self.failed)

    async def _take(self) -> None:
        """Take messages for ever. A cancellation strikes only while it waits: no taken message is lost."""
        while True:
            await self._slots.acquire()
            message = await self._reader.get()
            task = asyncio.create_task(self._handle(message))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)

    async def _handle(self, message: Message) -> None:
        ours: asyncio.Future[StageEvent | None] | None = None
        """The job, if this delivery began it."""
        slow = sent = False
        taken_s, span = time.perf_counter(), self._spans.begin(message)
        bind(session=subjects.session_of(message.subject), trace_id=trace_id_of(message.headers))
        try:
            self._taken[message.reply] = message
            self._measured.taken(message)
            self._tries.begin(message)
            if too_long(message.headers):
                raise Rejected(TOO_LONG, code="event.headers")
            if self._stage.wait is not None:
                await self._stage.wait(message)
            lane = self._stage.lane(message)
            async with self._workers[lane.slow].turn(lane.host):
                began_s = time.perf_counter()
                self._measured.began(began_s - taken_s)
                job = self._started.get(message.seq)
                if job is None:
                    job = ours = self._started[message.seq] = asyncio.ensure_future(self._stage.job(message))
                await asyncio.wait({job}, timeout=self._limits.timeout_s)
                slow = not job.done()
                if slow:
                    raise TimeoutError(f"{self.verb} took longer than {self._limits.timeout_s:g} s")
                self._started.pop(message.seq, None)
                result = job.result()
            if result is not None:
                sent = True
                await self._publish(result, carried(span, message))
            # Before the ack: a crash between the two brings the message again.
            self._spans.end(span, message, result)
            if span.recording:
                await self._jet.tracer.kept()
            await self._reader.ack(message)
            self._tries.end(message)
            self.done += 1
            self._measured.done(message, result, time.perf_counter() - began_s)
            self._spent.pop(message.seq, None)
            if self._stage.on_done is not None:
                self._stage.on_done(message)
        except asyncio.CancelledError:
            del self._taken[message.reply]
            with suppress(LucidError):
                await self._reader.nak(message)
            raise
        except Exception as error:
            del self._taken[message.reply]
            self.failed += 1
            span.fail(error, sent=sent)
            span.end()
            await self._fail(message, error, carried(span, message), slow=slow)
            if slow and ours is not None:
                await asyncio.wait({ours})
                forget = asyncio.get_running_loop().call_later  # another worker may have the next delivery
                forget(2 * self._limits.timeout_s + ACK_WAIT_S, self._started.pop, message.seq, None)
        finally:
            if ours is not None and not ours.done():
                ours.cancel()
            self._taken.pop(message.reply, None)
            self._slots.release()

    async def _publish(self, result: StageEvent, traceparent: str) -> None:
        await self._jet.publish(
            subjects.chunk(self._stage.makes, result.session),
            result.model_dump_json().encode(),
            headers=headers(getattr(result, "type", ""), traceparent),
            msg_id=f"{result.uid.hex()}.{result.run}.{self.verb}.{result.index}",
        )

    async def _extend_leases(self) -> None:
        """Extend the lease of every taken or fetched message, every third of ACK_WAIT_S."""
        while True:
            await asyncio.sleep(ACK_WAIT_S / 3)
            for message in (*self._taken.values(), *self._reader.waiting):
                if self._stage.on_extended is not None:
                    self._stage.on_extended(message)
                with suppress(LucidError):
                    await self._reader.in_progress(message)

    async def _fail(self, message: Message, error: Exception, traceparent: str, *, slow: bool) -> None:
        """Write the outcome of a failed job. If even that fails, the message is redelivered."""
        self._tries.fail(message, error)
        counts = not slow and not isinstance(error, Retryable)
        self._spent[message.seq] += counts
        spent = self._spent[message.seq]
        try:
            if isinstance(error, Rejected) or spent > self._limits.retries:
                await self._dead_letter(message, error, traceparent)
                await retry(lambda: self._reader.ack_sync(message), ACKNOWLEDGE)
                self._measured.failed(error)
                self._measured.dead(getattr(error, "code", BUG))
                self._tries.end(message)
                self._spent.pop(message.seq, None)
                if self._stage.on_dead is not None:
                    self._stage.on_dead(message)
                return
            self._measured.retried(SLOW if slow else FAILURE if counts else OUTAGE)
            again = Backoff(self._limits.timeout_s, self._limits.timeout_s, JOB.jitter) if slow else JOB
            if self._stage.on_failed is not None and not slow:
                self._stage.on_failed(message)
            await self._reader.nak(message, again.delay_s(message.deliveries))
            log.warning(
                "job_failed",
                stage=self.verb,
                subject=message.subject,
                seq=message.seq,
                deliveries=message.deliveries,
                error=repr(error),
                exc_info=error if counts else None,
            )
        except LucidError as worse:
            log.warning("outcome_unwritten", stage=self.verb, seq=message.seq, error=worse)

    async def _dead_letter(self, message: Message, error: Exception, traceparent: str) -> None:
        session = subjects.session_of(message.subject)
        if subjects.SESSION_ID.fullmatch(session) is None:
            log.error("unnameable", stage=self.verb, seq=message.seq, subject=message.subject[:200])
            return  # DEAD has no subject for it; the message stays in its stream
        dead = dead_letter(self.verb, session, message, error)
        log.error("dead_lettered", stage=self.verb, session=session, index=dead.index, code=dead.code)
        await publish_dead_letter(self._jet, dead, traceparent)
