"""Carries out `open` and `update`: sessions of the platform itself, personal fields of all.

1. Personal fields and the password arrive in the clear and are sealed here, under the session's key, before
   anything is written. They are in no log line and in no error.
2. `create` of a host may carry personal fields, too (`describe`). Its key is made with them, before START.
3. `open` may be repeated with the same `cause` and content, and answers the same session. The same cause with
   another content is refused (idempotency.reused).
4. `update` names the revision on which the caller decided; an older one is refused (session.revision). It is
   decided with the command, so a repeated `update` finds its own `cause` first, and changes nothing.
5. Settings that have no effect yet are refused, also those that came over HTTP.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

from handlers.crypto.details import seal_details, seal_password
from handlers.format.compression import check_cost
from handlers.lifecycle.decide import check_repeated, decide
from handlers.lifecycle.session import Session
from handlers.lifecycle.unsupported import refuse_unsupported
from handlers.lifecycle.view import session_details
from schemas.errors import Misuse, Stale
from schemas.events.commands import ChangeDetails, Command, Create, Open
from schemas.events.details import Details, Password
from schemas.events.session import CaptureSettings, SessionPolicy, SessionSettings
from schemas.format.chunk_header import DEFAULT_LEVELS, Codec
from schemas.subjects import UPLOAD_HOST
from streams.control.questions import Body, Questions
from streams.control.session_quota import SessionQuota
from streams.control.upload_host import UploadHost
from streams.control.wanted_session import Wanted
from streams.event_store.event_store import EventStore
from streams.keys.first_key import first_key
from streams.keys.keystore import KeyStore

FIRST = 1
"""The revision of the details in Created."""


def _given(members: object) -> object:
    """The members without those that are null: a null says nothing."""
    if not isinstance(members, dict):
        return members
    return {name: _given(member) for name, member in members.items() if member is not None}


GivenDetails = Annotated[Details, BeforeValidator(_given)]


class CaptureAsked(CaptureSettings):
    """The capture of a new session, with the settings that nothing obeys yet."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    audio: bool = False


class PolicyAsked(SessionPolicy):
    """The policy of a new session, with the settings that nothing obeys yet."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    backup: bool = False
    archive: bool = False


class OpenAsked(Command):
    """The body of `open`. settings: those that differ from the platform's."""

    settings: dict[str, int] = Field(default_factory=dict)
    details: GivenDetails | None = None
    password: Password | None = Field(default=None, repr=False)
    policy: PolicyAsked | None = None
    capture: CaptureAsked | None = None


class CreateAsked(Create):
    """The body of `create`: a host's request, and the personal fields of its session."""

    details: GivenDetails | None = None
    password: Password | None = Field(default=None, repr=False)

    @property
    def signed(self) -> Create:
        """The request itself. It holds no personal field."""
        return Create.model_validate(self.model_dump(exclude={"details", "password"}))


class UpdateAsked(Command):
    """The body of `update`. revision: the newest one that the caller knows; absent: any.

    partial: fields that are left out stay. password: absent: the former one stays.
    """

    revision: int | None = Field(default=None, ge=0, lt=2**53)
    partial: bool = False
    details: GivenDetails
    password: Password | None = Field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Opening:
    """One for each process that answers commands."""

    store: EventStore
    questions: Questions
    quota: SessionQuota
    keys: KeyStore
    host: UploadHost
    defaults: SessionSettings
    compression_max_s: float

    async def open(self, body: Body) -> Body:
        """Create a session that the platform writes itself: bytes of its recording come over HTTP."""
        asked = OpenAsked.model_validate(body)
        wanted = self._wanted(asked)
        session = await self.store.log.load(asked.session)
        if session.created is None:
            opened = self._open(asked, wanted)
            session = await self.quota.create(UPLOAD_HOST, asked.session, opened)
        else:
            await self._check_repeated(session, asked, wanted)
        return session_details(session)

    async def update(self, body: Body) -> Body:
        """Replace the personal fields of a session. Its history keeps the earlier ones, sealed."""
        asked = UpdateAsked.model_validate(body)
        while True:
            session = await self.questions.session({"session": asked.session})
            try:
                return session_details(await self._changed(session, asked))
            except Stale:
                if asked.revision is not None:
                    raise  # without a revision: another change was first, and this one comes after it

    async def _changed(self, session: Session, asked: UpdateAsked) -> Session:
        revision = (session.revision if asked.revision is None else asked.revision) + 1
        return await self._describe(session, revision, asked)

    async def describe(self, session: Session, asked: CreateAsked) -> Session:
        """Seal the personal fields that a host gives with its request, once.

        A crash between Created and this leaves a session without them: the host asks again before it starts.
        """
        if session.revision or (asked.details is None and asked.password is None):
            return session
        cause = f"describe-{session.uid.hex()}"
        return await self._describe(session, FIRST, asked.model_copy(update={"cause": cause}))

    async def _describe(self, session: Session, revision: int, asked: UpdateAsked | CreateAsked) -> Session:
        change = ChangeDetails(
            session=session.id,
            at_us=asked.at_us,
            who=asked.who,
            cause=asked.cause,
            revision=revision,
            dek_id=bytes(16),
            details=b"",
        )
        if not decide(session, change):  # refused before a key is made or read
            return session
        keys = await first_key(self.keys, self.host.require_keys, self.store.jet, session)
        details = asked.details or Details()
        if isinstance(asked, UpdateAsked) and asked.partial:
            details = merged(await self.questions.opened(session), details)
        sealed = {
            "dek_id": keys.dek_id,
            "details": seal_details(keys.dek, session.uid, revision, details),
            "secret": _sealed_password(keys.dek, session.uid, revision, asked.password),
        }
        return await self.store.log.execute(change.model_copy(update=sealed), session)

    async def _open(self, asked: OpenAsked, wanted: Wanted) -> Session:
        session, is_new = await self.host.create(wanted)
        if not is_new:  # another request with this name was first
            await self._check_repeated(session, asked, wanted)
        return session

    async def _check_repeated(self, session: Session, asked: OpenAsked, wanted: Wanted) -> None:
        """Raises RefusedByState (session.exists, idempotency.reused). A shredded session is not compared."""
        created = session.created
        assert created is not None
        again = Open(
            **created.model_dump(include={"host", "host_key", "counter", "prev_genesis", "request"}),
            session=session.id,
            at_us=asked.at_us,
            who=asked.who,
            cause=asked.cause,
            settings=wanted.settings,
            policy=wanted.policy,
            capture=wanted.capture,
            dek_id=created.dek_id or bytes(16),
        )
        if created.cause == asked.cause and created.dek_id is not None:
            async with self.keys.using(session.uid, created.dek_id) as held:
                if held is None:
                    return
                again = _sealed(again, held.keys.dek, asked)
        check_repeated(session, again)

    def _wanted(self, asked: OpenAsked) -> Wanted:
        """Raises Misuse (session.unsupported, session.settings, compression.*)."""
        policy = asked.policy or PolicyAsked()
        capture = asked.capture or CaptureAsked()
        refuse_unsupported({"audio": capture.audio, "backup": policy.backup, "archive": policy.archive})
        settings = session_settings(asked.settings, self.defaults)
        check_cost(Codec(settings.codec), settings.level, settings.chunk_bytes, self.compression_max_s)
        rules = SessionPolicy(retention_days=policy.retention_days, max_bytes=policy.max_bytes)
        picture = CaptureSettings(**capture.model_dump(exclude={"audio"})) if asked.capture else None
        return Wanted(
            session=asked.session,
            at_us=asked.at_us,
            who=asked.who,
            cause=asked.cause,
            settings=settings,
            seal=partial(_sealed, asked=asked),
            policy=rules if rules != SessionPolicy() else None,
            capture=picture,
        )


def merged(present: Details, given: Details) -> Details:
    """Return the details after a change. A member that `given` leaves out stays, also in `rdp_config`."""
    whole, more = present.model_dump(), given.model_dump(exclude_unset=True)
    if "rdp_config" in more:
        more["rdp_config"] = {**(whole["rdp_config"] or {}), **(more["rdp_config"] or {})}
    return Details.model_validate({**whole, **more})


def session_settings(given: dict[str, int], defaults: SessionSettings) -> SessionSettings:
    """Return the settings of a new session. A codec without a level has its own default level.

    Raises Misuse (session.settings), ValidationError.
    """
    unknown = given.keys() - SessionSettings.model_fields.keys()
    if unknown:
        raise Misuse(
            f"settings has no member {min(unknown)[:50]!r} "
            f"(allowed: {', '.join(sorted(SessionSettings.model_fields))})",
            code="session.settings",
        )
    members = {**defaults.model_dump(), **given}
    if members["codec"] != defaults.codec and "level" not in given and members["codec"] in set(Codec):
        members["level"] = DEFAULT_LEVELS[Codec(members["codec"])]
    return SessionSettings.model_validate(members)


def _sealed(command: Open, dek: bytes, asked: OpenAsked) -> Open:
    uid = command.uid
    details = seal_details(dek, uid, FIRST, asked.details or Details())
    secret = _sealed_password(dek, uid, FIRST, asked.password)
    return command.model_copy(update={"details": details, "secret": secret})


def _sealed_password(dek: bytes, uid: bytes, revision: int, password: str | None) -> bytes | None:
    return seal_password(dek, uid, revision, password) if password is not None else None
