"""Runs the recordings of this host that the platform asked for, beside each other, until each is stopped.

1. A recording ends by its own source, by `stop`, or by the session's log; all three end in order.
2. A crash of this process ends its captures. The platform sees the silence, as of every host.
3. At most RUNNING_MOST run at once; of the ended ones the last ENDED_MOST are remembered. A recording that
   could not start is not remembered: its name is free again.
4. Every end has a state. A bug of the recorder ends its recording as `failed`, too (recorder.failed).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from schemas.config.logs import logger
from schemas.errors import Busy, LucidError, NotFound, RefusedByState
from schemas.events.session import CaptureSettings, SessionSettings
from schemas.ports import Identities, Jet, Source
from schemas.ports.processes import Picture
from streams.host.publisher import Progress
from streams.host.record_session import record_session
from streams.host.session_start import About, start_session
from streams.scheduling.clock import now_us

RUNNING_MOST = 64
ENDED_MOST = 1000
ENCODER = "x264"

OpenSource = Callable[[float, Picture], AbstractAsyncContextManager[Source]]
"""Opens a capture: its longest time in seconds, its picture."""

log = logger("lucid.recordings")


@dataclass(slots=True)
class OwnRecording:
    """One recording of this host. The port RecordingView: it keeps the progress."""

    session: str
    picture: Picture
    number: int = 0
    """Its place among all recordings of the host: later ones have greater numbers, also after a restart."""
    progress: Progress = field(default_factory=Progress)
    state: str = "starting"
    """starting, recording, ending, ended or failed."""
    error: LucidError | None = None
    cause: str = ""
    """Of the request that began it; empty: it cannot be repeated."""
    begun: bool = False
    """Its session was started, whatever came later."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the session is started, or could not be."""

    def show(self, progress: Progress) -> None:
        self.progress = progress

    def ending(self, here: bool) -> None:
        self.state = "ending"

    def unended(self) -> None:
        log.error("session_unended", session=self.session)


class OwnRecordings:
    """The recordings of one process on one host."""

    def __init__(self, jet: Jet, identities: Identities, host: str, open_source: OpenSource) -> None:
        self.host = host
        self._jet, self._identities, self._open = jet, identities, open_source
        self._recordings: OrderedDict[str, OwnRecording] = OrderedDict()
        self._newest = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def all(self) -> list[OwnRecording]:
        """Every recording, the oldest first."""
        return list(self._recordings.values())

    def page(self, after: int, limit: int) -> tuple[list[OwnRecording], int]:
        """Recordings behind a number, the oldest first, and the `after` of the next page; 0: the end."""
        behind = [one for one in self._recordings.values() if one.number > after]
        return behind[:limit], behind[limit - 1].number if len(behind) > limit else 0

    def one(self, session: str) -> OwnRecording:
        """Raises NotFound (recording.absent)."""
        if session not in self._recordings:
            raise NotFound(f"host {self.host} has no recording {session}", code="recording.absent")
        return self._recordings[session]

    async def start(
        self,
        session: str,
        settings: SessionSettings,
        about: About,
        seconds: float,
        *,
        cause: str = "",
    ) -> OwnRecording:
        """Start a recording; return when its session is started. The same cause begins it once.

        about.capture drives the encoder.
        Raises RefusedByState (recording.exists), Busy (recordings.limit), and the errors of `start_session`.
        """
        if session in self._recordings:
            begun = self._recordings[session]
            if cause and begun.cause == cause:
                return await _started(begun)
            raise RefusedByState(
                f"host {self.host} has a recording {session} already", code="recording.exists"
            )
        if len(self._tasks) >= RUNNING_MOST:
            raise Busy(f"host {self.host} records {RUNNING_MOST} sessions", code="recordings.limit")
        picture = Picture.of(about.capture or CaptureSettings())
        self._newest = max(now_us(), self._newest + 1)
        recording = OwnRecording(session, picture, self._newest, cause=cause)
        self._recordings[session] = recording
        task = asyncio.create_task(
            self._record(recording, settings, about, seconds), name=f"record {session}"
        )
        self._tasks[session] = task
        task.add_done_callback(lambda task: self._ended(session, task))
        return await _started(recording)

    def stop(self, session: str) -> OwnRecording:
        """Ask a recording to end. A second call does nothing."""
        recording = self.one(session)
        recording.stopping.set()
        return recording

    async def close(self) -> None:
        """End all recordings in order."""
        for recording in self._recordings.values():
            recording.stopping.set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _record(
        self, recording: OwnRecording, settings: SessionSettings, about: About, seconds: float
    ) -> None:
        try:
            async with self._open(seconds, recording.picture) as source:
                grant = await start_session(
                    *(self._jet, self._identities, self.host, recording.session, settings),
                    once=True,
                    about=about,
                )
                recording.state, recording.begun = "recording", True
                recording.started.set()
                sent = await record_session(self._jet, grant, source, ENCODER, recording, recording.stopping)
            recording.progress, recording.error = sent.progress, sent.broken
            recording.state = "ended" if sent.broken is None else "failed"
        except LucidError as error:
            recording.error, recording.state = error, "failed"
            log.warning("recording_failed", session=recording.session, error=error)
        except Exception:
            log.exception("recording_failed", session=recording.session)
            recording.error, recording.state = _bug(recording.session), "failed"
        finally:
            if not recording.begun:  # also when nobody waits for its start any more
                del self._recordings[recording.session]
            recording.started.set()

    def _ended(self, session: str, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(session) is task:  # a caller that was refused may have begun another one
            del self._tasks[session]
        ended = [name for name in self._recordings if name not in self._tasks]
        for name in ended[: max(len(ended) - ENDED_MOST, 0)]:
            del self._recordings[name]


def _bug(session: str) -> LucidError:
    return LucidError(f"the recorder of {session} failed inside; the log says why", code="recorder.failed")


async def _started(recording: OwnRecording) -> OwnRecording:
    """The recording once its session is started. Raises the error that kept it from starting."""
    await recording.started.wait()
    if recording.error is not None and not recording.begun:
        raise recording.error
    return recording
