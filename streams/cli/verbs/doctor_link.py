"""The check of `lucid doctor` on the NATS server: its link, and its limits for our streams."""

from schemas.config.nats_url import addresses
from schemas.config.values import size_text
from schemas.errors import NotFound, Unavailable
from schemas.ports import Jet
from streams.event_store.topology import EVENT_BYTES, NAMES


async def look(jet: Jet, storage_bytes: int) -> tuple[str, str]:
    """The text for the link, and the repair; empty: none.

    storage_bytes: the most that all streams together may take; 0: not set.
    """
    account = await jet.account()
    missing = [name for name in NAMES if not await _is_there(jet, name)]
    parts = [
        ", ".join(server.shown for server in addresses(jet.url)),
        f"messages of up to {size_text(jet.max_payload)}",
        f"{account.streams} streams" + (f" of {account.max_streams}" if account.max_streams >= 0 else ""),
    ]
    if account.max_bytes >= 0:
        parts.append(f"{size_text(account.bytes)} of {size_text(account.max_bytes)} used")
    return ", ".join(parts), _cure(
        small=jet.max_payload < EVENT_BYTES,
        streams=0 <= account.max_streams < account.streams + len(missing),
        space=0 <= account.max_bytes < storage_bytes,
    )


def _cure(*, small: bool, streams: bool, space: bool) -> str:
    if small:
        return f"it needs max_payload of {EVENT_BYTES} at least (1 MB is its default)"
    if streams:
        return f"its account needs {len(NAMES)} streams of ours: raise max_streams"
    if space:
        return "its account may keep less than NATS_MAX_STORAGE_MB: lower that, or raise max_file there"
    return ""


async def _is_there(jet: Jet, stream: str) -> bool:
    try:
        await jet.info(stream)
    except NotFound:
        return False
    except Unavailable as error:
        if error.code == "nats.nobody":
            return False
        raise
    return True
