"""The part of `lucid doctor` that looks at `keys/`: is it there, and does it belong to the log?"""

from schemas.errors import Denied, Unavailable
from streams.cli import output
from streams.cli.starting import find
from streams.key_folder import key_folder
from streams.wiring import Installation, connected

BACK = "put keys/ back from its copy"


async def keys_found(here: Installation) -> str:
    """What is said of a folder that is as it must be. Raises Denied (keys.*), and as `connected`."""
    folder = here.key_folder
    try:
        url = find(here)
    except Unavailable as error:
        if error.code not in ("server.absent", "server.starting"):
            raise
        return _beside_no_server(here)
    async with connected(url, "lucid-doctor") as jet:
        await key_folder(here, jet).check()
    return f"{output.key_digits(folder.installation().hex())}, as the log knows it"


def _beside_no_server(here: Installation) -> str:
    """The log cannot be asked; whether there is one is known all the same."""
    folder = here.key_folder
    where, name = output.home(folder.path), folder.installation()
    if here.holds_log() and not name:
        raise Denied(f"{where} is missing or empty beside a log", code="keys.missing", hint=BACK)
    if folder.joined() and not here.holds_log():
        raise Denied(
            f"{where} belongs to a log that is not here",
            code="keys.log_missing",
            hint="put nats/ back; to begin anew, move keys/ away",
        )
    return output.key_digits(name.hex()) if name else "none yet; the first start makes them"
