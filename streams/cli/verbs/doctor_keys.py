"""The checks of `lucid doctor` on `keys/`: its installation, its copies, its mirror.

They change nothing. If a server runs, they compare `keys/` with its log.
"""

from handlers.crypto.key_folder import copy_wanted
from schemas.errors import Denied
from schemas.ports import Jet
from schemas.types import utc_text
from streams.cli import output
from streams.cli.wait_start import running_url
from streams.keys.copies import copies_made
from streams.keys.folder import keys_noted
from streams.roles.drivers import Installation, connected
from streams.scheduling import clock

COPY = "lucid keys copy FILE"


async def keys_found(here: Installation) -> str:
    """The text for a folder in order.

    Raises Denied and Unavailable (both keys.*), and as `connected`.
    """
    url, folder = running_url(here), here.key_folder
    if url is None:
        text = _beside_no_server(here)
    else:
        async with connected(url, "lucid-doctor") as jet:
            await here.logged_keys(jet).check()
        text = f"{output.key_digits(folder.installation().hex())}, as the log knows it"
    if folder.installation():
        folder.require_writable()
    return text


async def copies_found(here: Installation) -> tuple[str, str]:
    """The text for the copies of keys/, and the command to run; empty: none. Raises as `connected`."""
    url = running_url(here)
    if url is None:
        return "known while the system runs", ""
    async with connected(url, "lucid-doctor") as jet:
        return await _copies(here, jet)


def mirror_found(here: Installation) -> tuple[str, str]:
    """The text for the mirror of keys/, and the repair; empty: none. Raises Denied (keys.*)."""
    first, mirror = here.key_place(), here.mirror_place()
    assert mirror is not None
    where = output.short_path(mirror.path)
    here.key_folder.require_usable()
    if not mirror.folder.installation():
        return f"{where}: the first start fills it", ""
    if first.disks() & mirror.disks():
        return f"{where} is on the same disk as keys/", "put it on another one"
    one, two = (sum(1 for _ in place.files.states()) for place in (first, mirror))
    if one != two:
        return f"{where} has {two} of {one} keys", "the next start brings both to one state"
    return f"{where}, with the keys of {output.count_of(two, 'session')}", ""


async def _copies(here: Installation, jet: Jet) -> tuple[str, str]:
    noted, _ = await keys_noted(jet)
    made = await copies_made(jet) if noted else []
    now_us, most_s = clock.now_us(), here.settings.keys_copy_max_age_s
    if noted and most_s and (why := copy_wanted(noted, made, now_us, most_s)):
        return why, COPY
    if not made:
        return "none was made", ""
    return f"{made[-1].label}, made {utc_text(made[-1].made_us, seconds=False)}", ""


def _beside_no_server(here: Installation) -> str:
    """The text without a server to ask: only the existence of a log is known."""
    folder = here.key_folder
    folder.require_usable()
    where, name = output.short_path(folder.path), folder.installation()
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
