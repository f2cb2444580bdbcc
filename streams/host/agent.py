"""Records every RDP session of this host: it looks at the host, and keeps one recording for each session.

1. The host's own list of sessions decides. A notice only brings a look forward, so no notice can be missed.
2. One RDP session is one recorded session, from its first look to its end. A disconnect and a reconnect begin
   parts (`disconnected`, `reconnected`).
3. The notice is shown when a client connects. Its part (`notice.` and the digest of its text) begins when the
   display says that it is visible: so the evidence names the text that the person saw.
4. After a failure or the end of its source, a recording begins again as another session, after a pause.
   Only a recording that the platform has ended does not begin again.
5. One session never waits for another. At most MOST are recorded at once; more are refused, with a log line.
6. After a crash of the agent, its recordings are silent, and the platform ends them. The next agent finds the
   same RDP sessions, and records them as new sessions.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from schemas.config.logs import logger
from schemas.config.profiles import Profile
from schemas.errors import LucidError
from schemas.events.details import Details, RdpConfig
from schemas.events.session import CaptureSettings, SessionPolicy, SessionSettings
from schemas.format.digest import h
from schemas.ports import Identities, Jet
from schemas.ports.processes import Picture
from schemas.ports.rdp import DisplaySource, RdpHost, RdpSession
from streams.host.own_recordings import OwnRecording
from streams.host.record_session import cancelled, record_session
from streams.host.session_start import About, new_name, start_session

LOOK_S = 1.0
EAGER_S, EAGER_LOOK_S = 10.0, 0.2
"""After a notice the host is looked at more often: its session takes a moment to begin."""
MOST = 250
TELL_S = 60.0
"""A host that cannot be looked at is told in the log at most so often."""
CHANGE_S = 2.0
"""A client that comes and goes more often makes no more parts than one each."""
RETRY_S, RETRY_MOST_S = 3.0, 60.0
"""Between two recordings of one session; each time twice as long, up to the most. At first longer than a
look: a session that has ended is not recorded again."""
ENCODER = "x264"
DISCONNECTED, RECONNECTED, NOTICE = "disconnected", "reconnected", "notice"
"""Reasons of a part."""
NOTICE_S = 20.0
VERSION_DIGITS = 16

log = logger("lucid.agent")


@dataclass(frozen=True, slots=True)
class Plan:
    """How the sessions of this host are recorded."""

    host: str
    settings: SessionSettings
    profile: Profile
    policy: SessionPolicy | None = None
    notice: str = ""
    """The text that is shown at each login; empty: none."""


@dataclass(slots=True)
class Followed:
    """One RDP session, for as long as it runs."""

    rdp: RdpSession
    source: DisplaySource | None = None
    """While it is recorded."""
    recording: OwnRecording | None = None
    """The last one."""
    notice: "asyncio.Task[None] | None" = None
    """It is shown now."""
    rests_until_s: float = 0
    """No client comes or goes before then."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the RDP session has ended, or the agent ends."""


class Agent:
    """The recordings of one host."""

    def __init__(self, jet: Jet, identities: Identities, rdp: RdpHost, plan: Plan) -> None:
        self._jet, self._identities, self._rdp, self._plan = jet, identities, rdp, plan
        self._followed: dict[str, Followed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unfollowed: set[str] = set()
        """Sessions beyond MOST."""
        self._eager_until_s = self._tell_s = 0.0
        self._notices: set[asyncio.Task[None]] = set()

    @property
    def followed(self) -> list[Followed]:
        """The sessions that run, the oldest first."""
        return list(self._followed.values())

    def counts(self) -> dict[tuple[str, ...], float]:
        """Return the number of RDP sessions that are recorded, without a client, and not recorded."""
        recorded = [one for one in self._followed.values() if one.source is not None]
        away = sum(not one.rdp.connected for one in recorded)
        unrecorded = len(self._followed) - len(recorded) + len(self._unfollowed)
        return {("connected",): len(recorded) - away, ("disconnected",): away, ("unrecorded",): unrecorded}

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop`; then end all recordings in order."""
        clock = asyncio.get_running_loop().time
        hearing = asyncio.create_task(self._rdp.noticed())
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                try:
                    self._compare(await asyncio.to_thread(self._rdp.sessions))
                except Exception as error:  # of any kind: all recordings go on
                    self._unseen(error)
                look_s = EAGER_LOOK_S if clock() < self._eager_until_s else LOOK_S
                await asyncio.wait({stopping, hearing}, timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
                if hearing.done():
                    log.info("notice_heard")
                    self._eager_until_s = clock() + EAGER_S
                    hearing = asyncio.create_task(self._rdp.noticed())
        finally:
            for followed in self._followed.values():
                followed.over.set()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await cancelled(hearing, stopping, *self._notices)

    def _unseen(self, error: Exception) -> None:
        """Tell that the host could not be looked at. Its sessions go on as they were."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._tell_s:
            self._tell_s = now_s + TELL_S
            log.error("host_unseen", error=error)

    def _compare(self, running: list[RdpSession]) -> None:
        """Follow the sessions that began, tell the recordings of changes, leave those that ended."""
        keys = {one.key for one in running}
        for key in self._followed.keys() - keys:
            followed = self._followed.pop(key)
            followed.over.set()
            log.info("rdp_session_ended", display=followed.rdp.display)
        self._unfollowed &= keys
        for one in running:
            known = self._followed.get(one.key)
            if known is None:
                self._follow(one)
                continue
            self._change(known, one)

    def _change(self, known: Followed, now: RdpSession) -> None:
        """Tell the recording that a client has come or gone; a later look tells it if it is too soon."""
        now_s = asyncio.get_running_loop().time()
        if known.rdp.connected != now.connected:
            if now_s < known.rests_until_s:
                return
            known.rests_until_s = now_s + CHANGE_S
            reason = RECONNECTED if now.connected else DISCONNECTED
            log.info(f"rdp_session_{reason}", display=now.display)
            if known.source is not None:
                known.source.cut(reason)
            known.rdp = now
            self._begin_notice(known)
        known.rdp = now

    def _follow(self, rdp: RdpSession) -> None:
        if len(self._tasks) >= MOST:
            if rdp.key not in self._unfollowed:
                log.error("rdp_session_unrecorded", display=rdp.display, reason="too_many", most=MOST)
            self._unfollowed.add(rdp.key)
            return
        self._unfollowed.discard(rdp.key)
        log.info("rdp_session_found", display=rdp.display, connected=rdp.connected)
        followed = self._followed[rdp.key] = Followed(rdp)
        task = asyncio.create_task(self._keep(followed), name=f"record display {rdp.display}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, followed: Followed) -> None:
        """Record the session, again after each end, until it is over or the platform has ended it."""
        clock, wait_s = asyncio.get_running_loop().time, RETRY_S
        while not followed.over.is_set():
            began_s = clock()
            try:
                if await self._record(followed):
                    return
            except LucidError as error:
                log.warning("rdp_session_unrecorded", display=followed.rdp.display, error=error)
            except Exception:
                log.exception("rdp_session_unrecorded", display=followed.rdp.display)
            finally:
                followed.source = None
            if clock() - began_s > RETRY_MOST_S:
                wait_s = RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await followed.over.wait()
            wait_s = min(2 * wait_s, RETRY_MOST_S)

    async def _record(self, followed: Followed) -> bool:
        """Record the session once. Returns whether the platform has ended it.

        Raises the errors of the display, of `start_session` and of `record_session`, and the one that broke
        the recording off.
        """
        capture = self._capture(*await self._rdp.size(followed.rdp))
        about = About(
            capture=capture, policy=self._plan.policy, details=details(self._plan.host, followed.rdp)
        )
        picture, host = Picture.of(capture), self._plan.host
        followed.recording = recording = OwnRecording(new_name(host), picture)
        async with self._rdp.source(followed.rdp, picture) as source:
            if not followed.rdp.connected:
                source.cut(DISCONNECTED)
            followed.source = source
            grant = await start_session(
                *(self._jet, self._identities, host, recording.session, self._plan.settings),
                once=True,
                about=about,
            )
            recording.state, recording.begun = "recording", True
            log.info("rdp_session_recorded", display=followed.rdp.display, session=grant.session)
            self._begin_notice(followed)
            sent = await record_session(self._jet, grant, source, ENCODER, recording, followed.over)
        ended_elsewhere = recording.state == "ending" and not sent.unheard
        recording.progress, recording.error = sent.progress, sent.broken
        recording.state = "ended" if sent.broken is None else "failed"
        if sent.broken is not None:
            raise sent.broken
        return ended_elsewhere

    def _begin_notice(self, followed: Followed) -> None:
        """Show the notice if a client is connected. An earlier one is over: its client has gone."""
        if followed.notice is not None:
            followed.notice.cancel()
        if not self._plan.notice or not followed.rdp.connected or followed.source is None:
            return
        followed.notice = asyncio.create_task(self._tell(followed))
        self._notices.add(followed.notice)
        followed.notice.add_done_callback(self._notices.discard)

    async def _tell(self, followed: Followed) -> None:
        text = self._plan.notice

        def shown() -> None:
            version = h(text.encode()).hex()[:VERSION_DIGITS]
            log.info("notice_shown", display=followed.rdp.display, version=version)
            if followed.source is not None:
                followed.source.cut(f"{NOTICE}.{version}")

        try:
            await self._rdp.tell(followed.rdp, text, NOTICE_S, shown)
        except LucidError as error:
            log.warning("notice_unshown", display=followed.rdp.display, error=error)

    def _capture(self, width: int, height: int) -> CaptureSettings:
        return CaptureSettings(
            frame_rate=self._plan.profile.frame_rate,
            quality=self._plan.profile.quality,
            width=min(max(width, 320), 7680),
            height=min(max(height, 240), 4320),
        )


def details(host: str, rdp: RdpSession) -> Details:
    """Return the personal fields of a session: the platform seals them."""
    user, domain = _line(rdp.user), _line(rdp.domain)
    config = RdpConfig(host=host, username=user, domain=domain, client_address=rdp.client[:253])
    return Details(name=_line(f"{rdp.user} on {host}"), rdp_config=config)


def _line(text: str) -> str:
    """The text as one line of a detail."""
    return "".join(letter for letter in text if letter.isprintable())[:200]
