"""Measures the whole installation every LOOK_S: sessions, pipelines, hosts, streams, consumers, disks.

1. Every conductor measures the same. A query over several conductors takes the maximum.
2. A part that cannot be read keeps its former values. `lucid_look_age_seconds` says how old they are.
3. The read models are summed only when their position has moved, at most every TOTALS_S.
4. Hosts are shown by name within bounds (streams/conductor/shown_hosts.py), and their number always.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Literal

from handlers.lifecycle.next_action import FILLING, HOST_SILENT
from handlers.lifecycle.session import RECORDING, Session
from handlers.retention.forecast import hours_to_full
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.events.session import State
from schemas.ports import DataDir, Views
from schemas.ports.files import Disk
from schemas.ports.messages import StreamInfo
from schemas.ports.metrics import Meter, Rows
from schemas.ports.read_models import SessionFilter
from streams.conductor.conductor import Conductor
from streams.conductor.shown_hosts import ShownHosts
from streams.conductor.stage_watch import StageWatch
from streams.event_store.event_store import EventStore
from streams.event_store.topology import OTHERS
from streams.scheduling.clock import now_us

LOOK_S = 5.0
TOTALS_S = 10.0
FORECAST_S, FORECAST_STEP_S = 3600.0, 60.0
"""The forecast looks back so far, at one sample in each step."""
STATES = tuple(name for name in vars(State) if name.isupper())
PIPELINE_STATES = ("running", "paused", "finishing")

log = logger("lucid.metrics")


class SystemMeasurements:
    """One for each conductor. `run` looks until cancelled."""

    def __init__(
        self,
        meter: Meter,
        store: EventStore,
        views: Views,
        data: DataDir,
        conductor: Conductor,
        stages: StageWatch,
    ) -> None:
        self._store, self._views, self._data, self._conductor = store, views, data, conductor
        self._stages = stages
        self._looked_s = time.monotonic()
        self._position = -1
        self._totals_s = float("-inf")
        self._sessions: dict[tuple[str, ...], float] = {(state,): 0 for state in STATES}
        self._stored: dict[tuple[str, ...], float] = {}
        self._streams: list[StreamInfo] = []
        self._lags: dict[tuple[str, ...], float] = {}
        self._redeliveries: dict[tuple[str, ...], float] = {}
        self._disks: dict[str, Disk] = {}
        self._free: dict[str, deque[tuple[float, int]]] = {}
        self._hosts = ShownHosts(time.monotonic)
        self._show(meter)

    async def run(self) -> None:
        """Look every LOOK_S until cancelled. No error ends it."""
        while True:
            looks = (
                self._look_at_streams,
                self._look_at_consumers,
                self._look_at_totals,
                self._look_at_disks,
            )
            if all([await self._done(look) for look in looks]):
                self._looked_s = time.monotonic()
            await asyncio.sleep(LOOK_S)

    async def _done(self, look: Callable[[], Awaitable[None]]) -> bool:
        try:
            await look()
        except (LucidError, OSError) as error:
            log.info("measurement_failed", look=look.__name__.lstrip("_"), error=error)
            return False
        except Exception:
            log.exception("measurement_failed", look=look.__name__.lstrip("_"))
            return False
        return True

    async def _look_at_streams(self) -> None:
        store = self._store
        self._streams = [*await store.recordings.infos(), *[await store.jet.info(name) for name in OTHERS]]

    async def _look_at_consumers(self) -> None:
        lags: Counter[tuple[str, ...]] = Counter()
        again: Counter[tuple[str, ...]] = Counter()
        for one in await self._store.jet.consumers(subjects.CHUNKS):
            stage = (one.name.partition("-")[0],)
            lags[stage] += one.pending + one.unacknowledged
            again[stage] += one.redelivered
        self._lags, self._redeliveries = dict(lags), dict(again)

    async def _look_at_totals(self) -> None:
        position = (await self._views.active()).position
        if position == self._position or time.monotonic() - self._totals_s < TOTALS_S:
            return
        found = await self._views.totals(SessionFilter())
        self._position, self._totals_s = position, time.monotonic()
        sessions = {one.state: one.sessions for one in found}
        self._sessions = {(state,): sessions.get(state, 0) for state in STATES}
        self._stored = {
            ("chunks",): sum(one.chunks for one in found),
            ("plain_bytes",): sum(one.plain_bytes for one in found),
            ("sealed_bytes",): sum(one.sealed_bytes for one in found),
        }

    async def _look_at_disks(self) -> None:
        self._disks = await asyncio.to_thread(self._data.disks)
        now_s = time.monotonic()
        for name, disk in self._disks.items():
            free = self._free.setdefault(name, deque(maxlen=int(FORECAST_S / FORECAST_STEP_S)))
            if not free or now_s - free[-1][0] >= FORECAST_STEP_S:
                free.append((now_s, disk.free_bytes))

    # the rows

    def _show(self, meter: Meter) -> None:
        rows, value = meter.rows, meter.value
        rows("lucid_sessions", "Sessions by state.", ("state",), lambda: self._sessions)
        value("lucid_sessions_open", "Sessions that are not finished.", lambda: len(self._open()))
        rows("lucid_sealed", "Chunks and bytes of all sealed sessions.", ("of",), lambda: self._stored)
        rows("lucid_pipelines", "Pipelines of sessions that are not finished.", ("state",), self._pipelines)
        rows("lucid_host_heard_age_seconds", "Time since a recording host was heard.", ("host",), self._ages)
        value("lucid_hosts_recording", "Hosts that must send now.", lambda: len(self._all_ages()))
        value("lucid_hosts_silent", "Hosts that are silent in a recording.", self._silent)
        rows("lucid_stream_bytes", "Bytes of a stream.", ("stream",), lambda: self._of_streams("bytes"))
        rows("lucid_stream_limit_bytes", "Bytes that a stream may have.", ("stream",),
             lambda: self._of_streams("max_bytes"))  # fmt: skip
        rows("lucid_stream_messages", "Messages of a stream.", ("stream",),
             lambda: self._of_streams("messages"))  # fmt: skip
        rows("lucid_stream_last_sequence", "Sequence of the last message of a stream.", ("stream",),
             lambda: self._of_streams("last_seq"))  # fmt: skip
        rows("lucid_dead_letters", "Dead letters that were ever written.", (), self._dead, rises=True)
        rows("lucid_stage_lag", "Messages that a stage has not done.", ("stage",), lambda: self._lags)
        rows("lucid_stage_still_seconds", "Time in which something waited for a stage that finished nothing.",
             ("stage",), lambda: self._stage_states("still_s"))  # fmt: skip
        rows("lucid_stage_stalled", "Whether a stage stands still, as /ready judges.", ("stage",),
             lambda: self._stage_states("stalled"))  # fmt: skip
        rows("lucid_stage_left_behind", "Sessions that stand still at a stage which works.", ("stage",),
             lambda: self._stage_states("left_behind"))  # fmt: skip
        rows("lucid_stage_redelivering", "Messages of a stage under redelivery.", ("stage",),
             lambda: self._redeliveries)  # fmt: skip
        rows("lucid_disk_free_bytes", "Free space of a disk of the data folder.", ("folder",),
             lambda: {(name,): disk.free_bytes for name, disk in self._disks.items()})  # fmt: skip
        rows("lucid_disk_size_bytes", "Size of a disk of the data folder.", ("folder",),
             lambda: {(name,): disk.size_bytes for name, disk in self._disks.items()})  # fmt: skip
        rows("lucid_disk_hours_to_full", "Hours until a disk is full, as it fills now.", ("folder",),
             lambda: {(name,): hours_to_full(free) for name, free in self._free.items()})  # fmt: skip
        value("lucid_look_age_seconds", "Age of these measurements of the installation.",
              lambda: time.monotonic() - self._looked_s)  # fmt: skip

    def _open(self) -> list[Session]:
        return list(self._store.directory.sessions())

    def _pipelines(self) -> Rows:
        counts = Counter(_pipeline(session) for session in self._open())
        return {(state,): counts[state] for state in PIPELINE_STATES}

    def _all_ages(self) -> dict[str, float]:
        """Seconds since each host was heard that must send now."""
        now, ages = now_us(), dict[str, float]()
        for session in self._open():
            # Nobody ticks for an upload, and nobody folds the fragments of a paused pipeline.
            if session.state not in FILLING or session.upload or session.pipeline_paused:
                continue
            heard_us = self._conductor.heard_us(session)
            if session.created is not None and heard_us:
                host = session.created.host
                ages[host] = max(ages.get(host, 0.0), (now - heard_us) / 1e6)
        return ages

    def _ages(self) -> Rows:
        return self._hosts.rows(self._all_ages())

    def _silent(self) -> int:
        return len(set(map(_host, filter(_is_silent, self._open()))))

    def _stage_states(self, member: Literal["still_s", "stalled", "left_behind"]) -> Rows:
        """Nothing of states that are old."""
        states = self._stages.states()
        return {(stage,): float(one[member]) for stage, one in states.items() if not one["old"]}

    def _dead(self) -> Rows:
        dead = [one.last_seq for one in self._streams if one.name == subjects.DEAD]
        return {(): dead[0]} if dead else {}

    def _of_streams(self, member: str) -> Rows:
        return {(one.name,): getattr(one, member) for one in self._streams}


def _pipeline(session: Session) -> str:
    if session.pipeline_paused:
        return "paused"
    return "running" if session.state in RECORDING else "finishing"


def _is_silent(session: Session) -> bool:
    return session.state == State.ERROR and session.reason == HOST_SILENT and not session.sealed


def _host(session: Session) -> str:
    return session.created.host if session.created else ""
