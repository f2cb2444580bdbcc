"""Turns answers of the command service into the bodies of the API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from handlers.lifecycle.session import Session
from schemas.api.responses import (
    AccessShown,
    ChunkShown,
    MetadataShown,
    PipelineShown,
    RdpShown,
    RecordingShown,
    Seal,
    SessionShown,
    Statistics,
    StorageShown,
)
from schemas.format.chunk_header import SUITE_NAMES, Codec
from schemas.format.file_names import chunk_file, stored_chunk
from schemas.subjects import UPLOAD_HOST
from streams.api.asked_sessions import GB
from streams.evidence.stored_chunks import StoredChunk

EARLIEST = datetime(1, 1, 1, tzinfo=UTC)


def time_of(at_us: int) -> datetime:
    """A time of ours; outside of the calendar its border."""
    try:
        return datetime.fromtimestamp(at_us / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return EARLIEST if at_us < 0 else datetime.max.replace(tzinfo=UTC)


def session_shown(shown: Mapping[str, Any], found: Mapping[str, Any] | None = None) -> SessionShown:
    """A session as `show` or a page of `list` tells of it. found: the answer of `details`."""
    found = found or shown
    details = found.get("details") or {}
    seal = shown.get("seal")
    return SessionShown(
        id=shown["session"],
        uid=shown["uid"],
        name=details.get("name", ""),
        status=shown["state"],
        reason=shown["reason"],
        host=shown["host"],
        unattested=shown["host"] == UPLOAD_HOST,
        revision=found["revision"],
        created_at=time_of(shown["created_us"]),
        started_at=_time_or_none(shown["started_us"]),
        ended_at=_time_or_none(shown["ended_us"]),
        changed_at=time_of(shown["moved_us"]),
        retained_until=_time_or_none(shown["retained_until_us"]),
        held=shown["held"],
        sealed=shown["sealed"],
        destroyed=shown["shredded"],
        proven_at=_time_or_none(shown.get("proven_us", 0)),
        pipeline_paused=shown["pipeline_paused"],
        rdp_config=RdpShown(**(details.get("rdp_config") or {})),
        recording_config=_recording(shown),
        storage_config=_storage(shown),
        metadata=MetadataShown(
            **{name: details[name] for name in MetadataShown.model_fields.keys() & details}
        ),
        seal=_seal(seal) if seal else None,
        allowed=shown["allowed"],
        statistics=statistics(shown),
    )


def statistics(shown: Mapping[str, Any]) -> Statistics:
    """The numbers of a session.

    Of a sealed one the seal tells chunks and stored bytes. A list asks no stage; after the destruction of a
    session its stages have forgotten it.
    """
    seal, live = shown.get("seal"), shown.get("live") or {}
    if seal:
        chunks, stored = seal["data_chunks"], seal["data_chunks"] - shown["losses"]
    else:
        chunks = shown.get("recorded", live.get("chunks", 0))
        stored = shown.get("stored", chunks)
    asked = "recorded" in shown and shown["recorded"] >= chunks
    return Statistics(
        duration_s=shown["duration_us"] / 1e6,
        chunks=chunks,
        chunks_stored=stored,
        fragments=shown["fragments"] if asked else None,
        bytes=shown["plain"] if asked else (seal or live).get("plain", 0),
        stored_bytes=seal["sealed"] if seal else None,
        errors=max(shown["dead"], len(shown["refused"])) if "dead" in shown else None,
        gaps=shown["missing"] + shown["host_gaps"] if asked else None,
        compression_ratio=round(seal["plain"] / seal["sealed"], 4) if seal and seal["sealed"] else None,
    )


def pipeline_shown(shown: Mapping[str, Any]) -> PipelineShown:
    """The pipeline of a session, as `show` tells of it."""
    paused = shown.get("pipeline_paused", False)
    return PipelineShown(
        pipeline_id=shown["uid"],
        session_id=shown["session"],
        status="PAUSED" if paused else shown["state"],
        paused=paused,
        recorded=shown.get("recorded", 0),
        stored=shown.get("stored", 0),
        missing_fragments=shown.get("missing", 0),
        dead_chunks=shown.get("dead", 0),
        refused=len(shown.get("refused", ())),
        waits_for=shown.get("waits_for"),
    )


def chunk_shown(session: Session, chunk: StoredChunk) -> ChunkShown:
    """One chunk of a session's store or manifest."""
    entry = chunk.entry
    return ChunkShown(
        id=chunk_file(entry.index),
        sequence=entry.index,
        track=entry.track,
        part=entry.part,
        offset=entry.offset,
        status="lost" if entry.lost else "stored",
        started_at=time_of(entry.first_us),
        ended_at=time_of(entry.last_us),
        duration_s=max(entry.last_us - entry.first_us, 0) / 1e6,
        bytes=entry.plain,
        stored_bytes=entry.sealed,
        hash=None if entry.lost else entry.digest.hex(),
        storage_path=None if entry.lost else stored_chunk(session.uid, entry.index),
        compression=Codec(chunk.codec).name.lower(),
        compression_ratio=round(entry.plain / entry.sealed, 4) if entry.sealed else None,
        key_id=session.dek_id.hex(),
        first_fragment=entry.first_seq,
        last_fragment=entry.last_seq,
    )


def access_shown(found: Mapping[str, Any]) -> AccessShown:
    """A request that a second person answers."""
    return AccessShown(
        id=found["id"],
        stage=found["stage"],
        session_id=found["session"],
        look=found["look"],
        requester=found["requester"],
        reason=found["reason"],
        asked_at=time_of(found["asked_us"]),
        ends_at=time_of(found["ends_us"]),
        answered_by=found["answered_by"],
        answer_reason=found["answer_reason"],
        answered_at=time_of(found["answered_us"]) if found["answered_us"] else None,
        until=time_of(found["until_us"]) if found["until_us"] else None,
    )


def _recording(shown: Mapping[str, Any]) -> RecordingShown:
    capture, compression = shown.get("capture"), Codec(shown["settings"]["codec"]).name.lower()
    if not capture:
        return RecordingShown(compression=compression)
    return RecordingShown(
        frame_rate=capture["frame_rate"],
        resolution=f"{capture['width']}x{capture['height']}",
        quality=capture["quality"],
        bitrate=capture.get("bitrate"),
        cursor=capture["cursor"],
        compression=compression,
    )


def _storage(shown: Mapping[str, Any]) -> StorageShown:
    policy, settings = shown["policy"], shown["settings"]
    return StorageShown(
        retention_days=policy.get("retention_days"),
        max_size_gb=policy["max_bytes"] / GB if policy.get("max_bytes") else None,
        encryption=SUITE_NAMES.get(settings["suite"]),
        compression=Codec(settings["codec"]).name.lower(),
    )


def _time_or_none(at_us: int) -> datetime | None:
    """None: never."""
    return time_of(at_us) if at_us else None


def _seal(seal: Mapping[str, Any]) -> Seal:
    return Seal(
        seal_no=seal["seal_no"],
        sealed_at=time_of(seal["sealed_us"]),
        manifest=seal["manifest"],
        root=seal["root"],
        chunks=seal["chunks"],
        bytes=seal["plain"],
        stored_bytes=seal["sealed"],
    )
