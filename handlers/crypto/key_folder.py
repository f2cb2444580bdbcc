"""Decides whether a `keys/` folder belongs to the log, and which of its keys the log must note.

1. If the log knows keys, no new folder is made: a missing, foreign or older folder is refused.
2. A folder may be ahead of the log after a crash in a rotation. The log then notes the new keys.
3. The trust root may be absent: it may be offline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import Denied
from schemas.events.installation import KeyMade, KeysCopied, KeysNoted, NotedMasterKey
from schemas.format.digest import ZERO
from schemas.types import utc_text


@dataclass(frozen=True, slots=True)
class KeysHeld:
    """The content of a `keys/` folder now."""

    path: str
    installation: bytes
    """16 bytes; empty: the folder names no installation."""
    joined: bool
    """Whether a log has named this folder."""
    restoring: bool
    """Whether a restore is running."""
    is_newest: bool
    """Whether a person said that no newer copy exists."""
    masters: Mapping[int, bytes]
    """Check values by version."""
    signers: tuple[bytes, ...]
    """Fingerprints, oldest first."""
    root: bytes
    """Fingerprint of the root; empty: it is absent."""


def require_belonging(held: KeysHeld, noted: KeysNoted | None, sessions: bool) -> None:
    """Return if the folder belongs to the log, or if both are new. sessions: whether the log has any.

    Raises Denied (keys.missing, keys.foreign, keys.older, keys.log_missing, keys.restoring).
    """
    if held.restoring:
        raise Denied(
            f"{held.path} is being restored, or that was interrupted",
            code="keys.restoring",
            hint="run it once more: lucid keys restore FILE",
        )
    if noted is None:
        if held.joined:
            raise Denied(
                f"{held.path} belongs to a log that is not here: this log knows no keys",
                code="keys.log_missing",
                hint="put the log back (nats/, or NATS_URL as it was); to begin anew, move keys/ away",
            )
        if sessions and not held.masters:
            raise _missing(held, "the log knows sessions")
        return
    if not held.installation:
        raise _missing(held, f"the log knows {_newest(noted)}")
    if held.installation != noted.installation:
        raise Denied(
            f"{held.path} belongs to another installation: it is {_digits(held.installation)}, "
            f"the log is {_digits(noted.installation)}",
            code="keys.foreign",
            hint="set LUCID_DATA (or NATS_URL) so that both are of one installation",
        )
    for master in noted.masters:
        check = held.masters.get(master.version)
        if check is None and not held.is_newest:
            raise _older(held, noted, f"master key version {master.version}")
        if check not in (None, master.check):
            raise Denied(
                f"master key version {master.version} in {held.path} differs from the one in the log",
                code="keys.foreign",
                hint=_copy_after(noted.at_us),
            )
    for fingerprint in noted.signers:
        if fingerprint not in held.signers and not held.is_newest:
            raise _older(held, noted, f"signer {_digits(fingerprint)}")


def require_key(held: KeysHeld, made: KeyMade, is_there: bool) -> None:
    """Return if the folder has the newest key. is_there: whether its file, or a fence, is there.

    Raises Denied (keys.older).
    """
    if not is_there and not held.is_newest:
        raise Denied(
            f"{held.path} is older than the log: it lacks the key of session {made.session}",
            code="keys.older",
            hint=_copy_after(made.at_us),
        )


def lost_version(held: KeysHeld, noted: KeysNoted | None) -> int:
    """Return the highest master key version in the log that the folder lacks; 0: none is lost.

    Its number is never used again: key files of the lost version would look damaged.
    """
    known = [master.version for master in noted.masters] if noted else []
    return max((version for version in known if version not in held.masters), default=0)


def copy_wanted(noted: KeysNoted, made: Sequence[KeysCopied], now_us: int, most_s: float) -> str:
    """Return why a copy of keys/ should be made now; empty: none is needed. made: copies, oldest first."""
    kept = [copy for copy in made if copy.until_us > now_us]
    if not kept:
        return "there is no copy of keys/: with this disk every recording is lost"
    if kept[-1].made_us < noted.at_us:
        return f"the newest copy of keys/ ({kept[-1].label}) lacks keys that were made after it"
    age_s = (now_us - kept[-1].made_us) / 1e6
    if age_s > most_s:
        return f"the newest copy of keys/ ({kept[-1].label}) is {age_s / 86_400:.0f} days old"
    return ""


def to_note(held: KeysHeld, noted: KeysNoted | None, at_us: int) -> KeysNoted | None:
    """Return the event that the log needs about its folder; None: it knows all keys."""
    now = KeysNoted(
        installation=held.installation,
        masters=tuple(
            NotedMasterKey(version=version, check=check) for version, check in sorted(held.masters.items())
        ),
        signers=held.signers,
        root=held.root or (noted.root if noted else ZERO),
        at_us=at_us,
    )
    return None if noted and now == noted.model_copy(update={"at_us": at_us}) else now


def _missing(held: KeysHeld, why: str) -> Denied:
    return Denied(
        f"{held.path} is missing or empty, and {why}: no new keys are made",
        code="keys.missing",
        hint="put keys/ back from its copy (lucid keys restore FILE), or set LUCID_DATA to where it is",
    )


def _older(held: KeysHeld, noted: KeysNoted, lacking: str) -> Denied:
    return Denied(
        f"{held.path} is older than the log: it lacks {lacking}",
        code="keys.older",
        hint=_copy_after(noted.at_us),
    )


def _copy_after(at_us: int) -> str:
    return (
        f"put back a copy of keys/ made after {utc_text(at_us)}: "
        "lucid keys restore FILE; if there is none: --newest"
    )


def _newest(noted: KeysNoted) -> str:
    versions = f"master key version {noted.masters[-1].version}" if noted.masters else "its keys"
    return f"{versions} and signer {_digits(noted.signers[-1])}" if noted.signers else versions


def _digits(name: bytes) -> str:
    text = name.hex()[:8]
    return f"{text[:4]} {text[4:]}"
