"""The check of `lucid doctor` on the NATS server: its link, and its limits for our streams."""

from schemas.config.nats_url import addresses
from schemas.config.values import size_text
from schemas.errors import NotFound, Unavailable
from schemas.ports import Jet
from schemas.ports.messages import StreamInfo
from schemas.subjects import RECORDINGS, recording_streams
from streams.event_store.recordings import shards_of
from streams.event_store.topology import DEFAULT_STORAGE_BYTES, EVENT_BYTES, OTHERS, shards_of_new


async def look(jet: Jet, storage_bytes: int, shards: int = 0) -> tuple[str, str]:
    """The text for the link, and the repair; empty: none.

    storage_bytes: the most that all streams together may take; shards: what SHARDS says; 0: not set.
    """
    account, first = await jet.account(), await _found(jet, RECORDINGS)
    wanted = shards_of(first) if first else shards or shards_of_new(storage_bytes or DEFAULT_STORAGE_BYTES)
    names = (*recording_streams(wanted), *OTHERS)
    missing = [name for name in names if await _found(jet, name) is None]
    parts = [
        ", ".join(server.shown for server in addresses(jet.url)),
        f"messages of up to {size_text(jet.max_payload)}",
        f"{account.streams} streams" + (f" of {account.max_streams}" if account.max_streams >= 0 else ""),
    ]
    if account.max_bytes >= 0:
        parts.append(f"{size_text(account.bytes)} of {size_text(account.max_bytes)} used")
    return ", ".join(parts), _cure(
        small=jet.max_payload < EVENT_BYTES,
        streams=len(names) if 0 <= account.max_streams < account.streams + len(missing) else 0,
        space=0 <= account.max_bytes < storage_bytes,
    )


def _cure(*, small: bool, streams: int, space: bool) -> str:
    if small:
        return f"it needs max_payload of {EVENT_BYTES} at least (1 MB is its default)"
    if streams:
        return f"its account needs {streams} streams of ours: raise max_streams"
    if space:
        return "its account may keep less than NATS_MAX_STORAGE_MB: lower that, or raise max_file there"
    return ""


async def _found(jet: Jet, stream: str) -> StreamInfo | None:
    try:
        return await jet.info(stream)
    except NotFound:
        return None
    except Unavailable as error:
        if error.code == "nats.nobody":
            return None
        raise
