"""The request for a session that the platform opens, and the command of its upload host from it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from handlers.crypto.keys import SessionKeys
from schemas.events.commands import CREATE_PREFIX, Open, create_request
from schemas.events.session import CaptureSettings, Created, SessionPolicy, SessionSettings
from schemas.format.fragment import MAIN, genesis, session_uid
from schemas.ports import HostIdentity
from schemas.subjects import UPLOAD_HOST


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for a session, but for the platform's part. cause: of the command."""

    session: str
    at_us: int
    who: str
    cause: str
    settings: SessionSettings
    seal: Callable[[Open, bytes], Open]
    """Seals the personal fields into the command, under this DEK."""
    policy: SessionPolicy | None = None
    capture: CaptureSettings | None = None


def create_command(me: HostIdentity, wanted: Wanted, counter: int, line: bytes, keys: SessionKeys) -> Open:
    """The command that creates a session, without its sealed fields."""
    asked = create_request(wanted.session, UPLOAD_HOST, me.public, counter, line, wanted.settings)
    return Open(
        session=wanted.session,
        at_us=wanted.at_us,
        who=wanted.who,
        cause=wanted.cause,
        host=UPLOAD_HOST,
        host_key=me.public,
        counter=counter,
        prev_genesis=line,
        settings=wanted.settings,
        request=me.key.sign(CREATE_PREFIX + asked),
        policy=wanted.policy,
        capture=wanted.capture,
        dek_id=keys.dek_id,
    )


def genesis_of(created: Open | Created, intake: bytes) -> bytes:
    """The genesis of the session's main track. intake: its public intake key."""
    uid = session_uid(created.host_key, created.counter)
    return genesis(uid, MAIN, created.host_key, created.counter, created.prev_genesis, intake)
