"""The part of `lucid doctor` that looks at `keys/`: whose it is, its copies, and where it lies.

It makes nothing, and asks the log where a server runs.
"""

from handlers.crypto.key_folder import copy_wanted
from schemas.errors import Denied, Unavailable
from schemas.ports import Jet
from schemas.types import utc_text
from streams.cli import output
from streams.cli.starting import find
from streams.keys.copies import copies_made
from streams.keys.folder import key_folder, keys_noted
from streams.roles.drivers import Installation, connected, plain_swap
from streams.scheduling import clock

COPY = "lucid keys copy FILE"


async def keys_found(here: Installation) -> str:
    """What is said of a folder that is as it must be.

    Raises Denied and Unavailable (both keys.*), and as `connected`.
    """
    url, folder = _url(here), here.key_folder
    if url is None:
        said = _beside_no_server(here)
    else:
        async with connected(url, "lucid-doctor") as jet:
            await key_folder(here, jet).check()
        said = f"{output.key_digits(folder.installation().hex())}, as the log knows it"
    if folder.installation():
        folder.require_writable()
    return said


async def copies_found(here: Installation) -> tuple[str, str]:
    """What is said of the copies of keys/, and what should be done; empty: nothing. Raises as `connected`."""
    url = _url(here)
    if url is None:
        return "known while the system runs", ""
    async with connected(url, "lucid-doctor") as jet:
        return await _copies(here, jet)


def erasing_found(here: Installation) -> str:
    """Why an erased key may be left where keys/ lies; empty: it is not."""
    return here.key_folder.unproven()


def mirror_found(here: Installation) -> tuple[str, str]:
    """What is said of the mirror of keys/, and what should be done; empty: nothing. Raises Denied."""
    first, mirror = here.key_place(), here.mirror_place()
    assert mirror is not None
    where = output.home(mirror.path)
    here.key_folder.require_usable()
    if not mirror.folder.installation():
        return f"{where}: the first start fills it", ""
    if first.disks() & mirror.disks():
        return f"{where} is on the same disk as keys/", "put it on another one"
    one, two = (sum(1 for _ in place.files.states()) for place in (first, mirror))
    if one != two:
        return f"{where} has {two} of {one} keys", "the next start brings both to one state"
    return f"{where}, with the keys of {output.count_of(two, 'session')}", ""


def swap_found() -> str:
    """Where key material may be written in the clear; empty: nowhere."""
    return ", ".join(plain_swap())


async def _copies(here: Installation, jet: Jet) -> tuple[str, str]:
    noted, _ = await keys_noted(jet)
    made = await copies_made(jet) if noted else []
    now_us, most_s = clock.now_us(), here.settings.keys_copy_max_age_s
    if noted and most_s and (why := copy_wanted(noted, made, now_us, most_s)):
        return why, COPY
    if not made:
        return "none was made", ""
    return f"{made[-1].label}, made {utc_text(made[-1].made_us, seconds=False)}", ""


def _url(here: Installation) -> str | None:
    """Where NATS is; None: nothing runs."""
    try:
        return find(here)
    except Unavailable as error:
        if error.code not in ("server.absent", "server.starting"):
            raise
        return None


def _beside_no_server(here: Installation) -> str:
    """The log cannot be asked; whether there is one is known all the same."""
    folder = here.key_folder
    folder.require_usable()
    where, name = output.home(folder.path), folder.installation()
    if folder.restoring():
        raise Denied(
            f"{where} is being restored, or that was interrupted",
            code="keys.restoring",
            hint="run it once more: lucid keys restore FILE",
        )
    if here.holds_log() and not name:
        raise Denied(
            f"{where} is missing or empty beside a log",
            code="keys.missing",
            hint="put keys/ back from its copy: lucid keys restore FILE",
        )
    if folder.joined() and not here.holds_log():
        raise Denied(
            f"{where} belongs to a log that is not here",
            code="keys.log_missing",
            hint="put nats/ back; to begin anew, move keys/ away",
        )
    return output.key_digits(name.hex()) if name else "none yet; the first start makes them"
