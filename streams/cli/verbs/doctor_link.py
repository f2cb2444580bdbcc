"""The checks of `lucid doctor` on the NATS server: its link, its limits for our streams, their space."""

from handlers.retention.space import send_quota_bytes
from schemas.config.nats_url import addresses
from schemas.config.places import DEFAULT_SHARDS
from schemas.config.values import size_text
from schemas.errors import NotFound, Unavailable
from schemas.ports import Jet
from schemas.ports.messages import StreamInfo
from schemas.subjects import recording_stream, recording_streams
from streams.event_store.recordings import shards_of
from streams.event_store.topology import EVENT_BYTES, OTHERS


async def look(jet: Jet, storage_bytes: int, shards: int = 0) -> tuple[str, str]:
    """The text for the link, and the repair; empty: none.

    storage_bytes: the most that all streams together may take; shards: what SHARDS says; 0: not set.
    """
    account, held = await jet.account(), await _shards(jet)
    names = (*recording_streams(held or shards or DEFAULT_SHARDS), *OTHERS)
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
        held_shards=held if shards not in (0, held or shards) else 0,
        streams=len(names) if 0 <= account.max_streams < account.streams + len(missing) else 0,
        space=0 <= account.max_bytes < storage_bytes,
    )


async def recordings(jet: Jet) -> tuple[str, str] | None:
    """How full the recording streams are, and the repair; None: there are none.

    Raises Misuse (shards.unknown).
    """
    names = recording_streams(await _shards(jet))
    if not names:
        return None
    streams = [info for name in names if (info := await _found(jet, name)) is not None]
    full = max(streams, key=lambda info: info.bytes / info.max_bytes if info.max_bytes > 0 else 0)
    limit = f" of {size_text(full.max_bytes)}" if full.max_bytes > 0 else ""
    space = f"{size_text(full.bytes)}{limit} in {full.name}"
    used = size_text(sum(info.bytes for info in streams))
    text = space if len(names) == 1 else f"{used} in {len(names)} streams; the fullest: {space}"
    missing = len(names) - len(streams)
    if missing:
        return (
            f"{text}; {missing} not made yet",
            "stop lucid up (or lucid serve) and start it again: its start makes them",
        )
    if send_quota_bytes(full.bytes, full.max_bytes, 1):
        return text, ""
    return (
        f"{text}: it takes no more data",
        "destroy sessions, or raise NATS_MAX_STORAGE_MB; sources of sealed sessions go by themselves",
    )


def _cure(*, small: bool, held_shards: int, streams: int, space: bool) -> str:
    """The first repair that is needed. held_shards: of the installation, if SHARDS is another number."""
    if small:
        return f"it needs max_payload of {EVENT_BYTES} at least (1 MB is its default)"
    if held_shards:
        return f"unset SHARDS, or set it to {held_shards}: the number is fixed at the first start"
    if streams:
        return f"its account needs {streams} streams of ours: raise max_streams"
    if space:
        return "its account may keep less than NATS_MAX_STORAGE_MB: lower that, or raise max_file there"
    return ""


async def _shards(jet: Jet) -> int:
    """How many recording streams the installation has; 0: it is a new one. Raises Misuse (shards.unknown)."""
    first = await _found(jet, recording_stream(0, 1))  # its name does not depend on the number
    return shards_of(first) if first else 0


async def _found(jet: Jet, stream: str) -> StreamInfo | None:
    try:
        return await jet.info(stream)
    except NotFound:
        return None
    except Unavailable as error:
        if error.code == "nats.nobody":
            return None
        raise
