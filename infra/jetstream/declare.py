"""Creates streams and consumers, and changes them to their declared configuration.

1. An absent one is created. A changeable difference is changed. Any other is Misuse (topology.drift):
   storage, retention, partitions, a subject that would vanish, a limit below the stored bytes. The server may
   refuse more.
2. A second call does nothing. Two callers at once end with the same result.
"""

import json
from typing import Any

from infra.jetstream import errors
from infra.jetstream.connection import Connection
from schemas.errors import Misuse, Unavailable
from schemas.ports.messages import ConsumerInfo, ConsumerSpec, StreamSpec
from schemas.subjects import PARTITIONS_KEY, SHARDS_KEY

NO_SUBJECT = "lucid-probe-of-no-stream"
"""No stream has this subject: a purge of it removes nothing."""
PROBE_TIMEOUT_S = 1.0
_NS = 1_000_000_000
_ALREADY = frozenset({10058, 10013, 10105, 10148})
"""Another client created it between our look and our attempt."""
_PLAIN_STREAM: dict[str, Any] = {
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "max_consumers": -1,
    "no_ack": False,
    "sealed": False,
    "discard_new_per_subject": False,
    "allow_rollup_hdrs": False,
    "mirror_direct": False,
    "compression": "none",
    "republish": None,
    "subject_transform": None,
    "mirror": None,
    "sources": None,
}
"""Fixed for every stream of ours: other values would drop, change or move messages."""
_PLAIN_CONSUMER: dict[str, Any] = {
    "headers_only": False,
    "backoff": None,
    "max_batch": 0,
    "max_expires": 0,
    "max_bytes": 0,
    "inactive_threshold": 0,
    "replay_policy": "instant",
}
_PLACE = ("deliver_policy", "opt_start_seq")


async def declare(conn: Connection, spec: StreamSpec) -> list[str]:
    """Create or change the stream; return the changes, [] for none."""
    wanted = _stream_config(spec)
    held = await api(conn, f"STREAM.INFO.{spec.name}", may_be_absent=True)
    if held is None:
        made = await api(conn, f"STREAM.CREATE.{spec.name}", _present(wanted), may_exist=True)
        if made is not None:
            return ["created"]
        held = await api(conn, f"STREAM.INFO.{spec.name}")
    assert held is not None
    config, drift = held["config"], []
    for key, value in wanted.items():
        now = config.get(key)
        if key == "metadata":
            now = {name: text for name, text in (now or {}).items() if not name.startswith("_")}
        if (now or 0) != (value or 0):
            _refuse_unless_changeable(spec, key, now, value, held["state"])
            drift.append(f"{key}: {now} -> {value}")
    if drift:
        await api(conn, f"STREAM.UPDATE.{spec.name}", _present(config | wanted))
    return drift


async def upsert_consumer(conn: Connection, stream: str, spec: ConsumerSpec) -> list[str]:
    """Create or change the durable consumer; return the changes. An existing one keeps its position."""
    wanted = _consumer_config(spec)
    held = await api(conn, f"CONSUMER.INFO.{stream}.{spec.name}", may_be_absent=True)
    if held is None:
        request = {"stream_name": stream, "config": _present(wanted), "action": "create"}
        if await api(conn, f"CONSUMER.CREATE.{stream}.{spec.name}", request, may_exist=True) is not None:
            return ["created"]
        held = await api(conn, f"CONSUMER.INFO.{stream}.{spec.name}")
    assert held is not None
    config = held["config"]
    if "filter_subject" in config:
        config["filter_subjects"] = [config.pop("filter_subject")]
    place = {key: config[key] for key in _PLACE if key in config}
    wanted = {key: value for key, value in wanted.items() if key not in _PLACE}
    drift = [
        f"{key}: {config.get(key)} -> {value}"
        for key, value in wanted.items()
        if (config.get(key) or 0) != (value or 0)
    ]
    if config.get("ack_policy") != "explicit":
        raise Misuse(f"consumer {spec.name} of {stream} does not use explicit acks", code="topology.drift")
    if drift:
        request = {"stream_name": stream, "config": _present(config | wanted | place), "action": "update"}
        await api(conn, f"CONSUMER.CREATE.{stream}.{spec.name}", request)
    return drift


async def consumers(conn: Connection, stream: str) -> list[ConsumerInfo]:
    """Return the position of every durable consumer, read page by page."""
    found: list[ConsumerInfo] = []
    offset = 0
    while True:
        answer = await api(conn, f"CONSUMER.LIST.{stream}", {"offset": offset})
        assert answer is not None
        page = answer.get("consumers") or []
        found += [_consumer_info(one) for one in page if "durable_name" in one["config"]]
        offset += len(page)
        if not page or offset >= int(answer.get("total", 0)):
            return found


async def delete_message(conn: Connection, stream: str, seq: int) -> bool:
    """Delete one message; False: it was not there."""
    request = json.dumps({"seq": seq, "no_erase": True}).encode()
    answer = json.loads((await conn.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", request)).data)
    error = answer.get("error")
    if error is None:
        return True
    number, text = error.get("err_code"), str(error.get("description", "")).lower()
    if number in errors.ABSENT or (number == errors.DELETE_FAILED and text.endswith(("eof", "not found"))):
        return False
    raise errors.from_answer(error, f"delete {stream} {seq}")


async def check_disk(conn: Connection, subject: str) -> None:
    """Raise NoSpace (disk.full) if the stream of `subject` reports that it cannot write.

    A stream on a full disk answers no publish. It does answer a purge with the reason, even for a subject
    that no stream has.
    """
    try:
        names = await _ask(conn, "STREAM.NAMES", {"subject": subject})
        for name in (names.get("streams") or [])[:1]:
            answer = await _ask(conn, f"STREAM.PURGE.{name}", {"filter": NO_SUBJECT})
            if "error" in answer:
                raise errors.from_answer(answer["error"], f"publish to {subject}")
    except Unavailable:
        return


async def _ask(conn: Connection, what: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await conn.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout_s=PROBE_TIMEOUT_S)
    decoded: dict[str, Any] = json.loads(answer.data)
    return decoded


async def api(
    conn: Connection,
    what: str,
    body: dict[str, Any] | None = None,
    *,
    may_be_absent: bool = False,
    may_exist: bool = False,
) -> dict[str, Any] | None:
    """Call the JetStream API; None: the absence or the clash that the caller allows."""
    data = json.dumps(body).encode() if body is not None else b""
    answer: dict[str, Any] = json.loads((await conn.request(f"$JS.API.{what}", data)).data)
    error = answer.get("error")
    if error is None:
        return answer
    number = error.get("err_code")
    if (may_be_absent and number in errors.ABSENT) or (may_exist and number in _ALREADY):
        return None
    raise errors.from_answer(error, what)


def _present(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config without None values: the server uses its default for an absent key."""
    return {key: value for key, value in config.items() if value is not None}


def _stream_config(spec: StreamSpec) -> dict[str, Any]:
    window_s = min(spec.duplicate_window_s, spec.max_age_s or spec.duplicate_window_s)
    return _PLAIN_STREAM | {
        "name": spec.name,
        "description": spec.description,
        "subjects": list(spec.subjects),
        "retention": "limits",
        "storage": "file",
        "discard": spec.discard,
        "max_bytes": spec.max_bytes,
        "max_age": int(spec.max_age_s * _NS),
        "max_msg_size": spec.max_msg_bytes,
        "duplicate_window": int(window_s * _NS),
        "num_replicas": spec.replicas,
        "allow_direct": spec.allow_direct,
        "deny_delete": False,
        "deny_purge": False,
        "metadata": _metadata(spec),
    }


def _metadata(spec: StreamSpec) -> dict[str, str]:
    numbers = {PARTITIONS_KEY: spec.partitions, SHARDS_KEY: spec.shards}
    return {key: str(number) for key, number in numbers.items() if number}


def _consumer_info(info: dict[str, Any]) -> ConsumerInfo:
    config = info["config"]
    return ConsumerInfo(
        name=info["name"],
        filters=frozenset(config.get("filter_subjects") or [config.get("filter_subject", ">")]),
        floor=int(info["ack_floor"]["stream_seq"]),
        is_read=int(info.get("num_waiting", 0)) > 0,
        delivered=int(info["delivered"]["stream_seq"]),
        pending=int(info.get("num_pending", 0)),
        unacknowledged=int(info.get("num_ack_pending", 0)),
        redelivered=int(info.get("num_redelivered", 0)),
    )


def _consumer_config(spec: ConsumerSpec) -> dict[str, Any]:
    place: dict[str, Any] = {"deliver_policy": "all"}
    if spec.start_seq > 1:
        place = {"deliver_policy": "by_start_sequence", "opt_start_seq": spec.start_seq}
    return (
        _PLAIN_CONSUMER
        | place
        | {
            "name": spec.name,
            "durable_name": spec.name,
            "ack_policy": "explicit",
            "ack_wait": int(spec.ack_wait_s * _NS),
            "max_ack_pending": spec.max_ack_pending,
            "max_waiting": spec.max_waiting,
            "description": spec.description,
            "max_deliver": -1,
            "filter_subjects": list(spec.filters),
        }
    )


def _refuse_unless_changeable(
    spec: StreamSpec, key: str, now: Any, value: Any, state: dict[str, Any]
) -> None:
    fixed = (
        key in ("storage", "retention", "metadata")
        or (key == "subjects" and not set(now or ()) <= set(value))
        or (key == "max_bytes" and value > 0 and value < int(state.get("bytes", 0)))
    )
    if fixed:
        raise Misuse(
            f"stream {spec.name}: {key} is {now} and should be {value}, which cannot be changed in place",
            code="topology.drift",
        )
