"""Turns a request about a session into the body of a command, which refuses settings without effect."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from handlers.lifecycle.unsupported import refuse_unsupported
from schemas.api.requests import (
    AuditQuery,
    FilterQuery,
    ListQuery,
    NewSession,
    RecordingConfig,
    SessionUpdate,
    StorageConfig,
)
from schemas.config.settings import Settings
from schemas.events.details import Details
from schemas.events.session import CaptureSettings, SessionPolicy, SessionSettings
from streams.host.session_start import About

GB = 1_000_000_000
TIME_MOST = (1 << 53) - 1


def opened(asked: NewSession, session: str, defaults: Settings) -> dict[str, Any]:
    """Return the body of the command `open`. It refuses `audio`, `backup` and `archive`."""
    recording, storage = asked.recording_config, asked.storage_config
    body: dict[str, Any] = {
        "session": session,
        "details": _details(asked),
        "settings": _settings(recording, storage, defaults).model_dump(),
        "capture": {**captured(recording).model_dump(exclude_none=True), "audio": recording.audio},
        "policy": {**_policy(storage), "backup": storage.backup, "archive": storage.archive},
    }
    return {**body, **password_in(asked)}


def about_recording(asked: NewSession, *, captures: bool = True) -> About:
    """Return the members of a session that its own host records. captures: a desktop, not a file."""
    policy, details = _policy(asked.storage_config), _details(asked)
    return About(
        capture=captured(asked.recording_config) if captures else None,
        policy=SessionPolicy(**policy) if policy else None,
        details=Details.model_validate(details) if details != _details(NewSession()) else None,
        password=password_in(asked).get("password"),
    )


def recorded_settings(asked: NewSession, defaults: Settings) -> SessionSettings:
    """Return the settings of a recording that a host makes. Raises Misuse (session.unsupported)."""
    recording, storage = asked.recording_config, asked.storage_config
    refuse_unsupported({"audio": recording.audio, "backup": storage.backup, "archive": storage.archive})
    return _settings(recording, storage, defaults)


def password_in(asked: NewSession | SessionUpdate) -> dict[str, str]:
    """Return the member of a command with the RDP password; empty: there is none."""
    given = asked.rdp_config.password if asked.rdp_config is not None else None
    return {} if given is None else {"password": given.get_secret_value()}


def captured(recording: RecordingConfig) -> CaptureSettings:
    """Return the picture that the request asks for. Raises Misuse (session.settings)."""
    width, height = picture_size(recording.resolution)
    return CaptureSettings(
        frame_rate=recording.frame_rate,
        width=width,
        height=height,
        quality=recording.quality,
        bitrate=recording.bitrate,
        cursor=recording.cursor,
    )


def updated(asked: SessionUpdate, session: str, revision: int | None) -> dict[str, Any]:
    """Return the body of the command `update`. revision: the one that the caller saw; None: any."""
    details: dict[str, Any] = {}
    if asked.name is not None:
        details["name"] = asked.name
    if asked.metadata is not None:
        details |= asked.metadata.model_dump(exclude_unset=True)
    if asked.rdp_config is not None:
        details["rdp_config"] = asked.rdp_config.model_dump(exclude_unset=True, exclude={"password"})
    seen = {} if revision is None else {"revision": revision}
    return {"session": session, "partial": True, "details": details, **seen, **password_in(asked)}


def filtered(wanted: FilterQuery) -> dict[str, Any]:
    """Return the conditions of a list as the command service takes them."""
    return {
        "state": wanted.status,
        "host": wanted.host,
        "text": wanted.text,
        "from_us": _micros(wanted.created_from),
        "before_us": _micros(wanted.created_before),
        "sealed": wanted.sealed,
        "owner": wanted.owner,
        "tags": wanted.tag,
        "project": wanted.project,
        "environment": wanted.environment,
        "name": wanted.name,
    }


def listed(wanted: ListQuery) -> dict[str, Any]:
    """Return the body of the command `list`."""
    order = {"sort": wanted.sort, "descending": wanted.order == "desc"}
    return {**filtered(wanted), **order, "cursor": wanted.cursor, "limit": wanted.limit, "details": True}


def audit_asked(wanted: AuditQuery) -> dict[str, Any]:
    """Return the body of the command `audit`."""
    return {
        **wanted.model_dump(include={"session", "who", "action", "outcome", "after", "limit"}),
        "since_us": _micros(wanted.since),
        "until_us": _micros(wanted.until),
        "newest_first": wanted.order == "desc",
    }


def _micros(at: datetime | None) -> int | None:
    """A time in µs, within the bounds of all times of ours."""
    return None if at is None else max(min(round(at.timestamp() * 1e6), TIME_MOST), -TIME_MOST)


def _details(asked: NewSession) -> dict[str, Any]:
    """Every descriptive member."""
    rdp = asked.rdp_config.model_dump(exclude={"password"})
    return {"name": asked.name, "rdp_config": rdp, **asked.metadata.model_dump()}


def _policy(storage: StorageConfig) -> dict[str, int]:
    """The rules that are given."""
    policy: dict[str, int] = {}
    if storage.retention_days is not None:
        policy["retention_days"] = storage.retention_days
    if storage.max_size_gb is not None:
        policy["max_bytes"] = max(int(storage.max_size_gb * GB), 1)
    return policy


def _settings(recording: RecordingConfig, storage: StorageConfig, defaults: Settings) -> SessionSettings:
    codec = recording.compression or storage.compression
    if codec is not None:
        level = defaults.level if codec == defaults.codec else None
        defaults = replace(defaults, codec=codec, level=level)
    if storage.encryption is not None:
        defaults = replace(defaults, suite=storage.encryption)
    return defaults.session()


def picture_size(resolution: str) -> tuple[int, int]:
    """Return width and height of a resolution."""
    width, height = map(int, resolution.split("x"))
    return width, height
