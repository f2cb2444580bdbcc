"""One event of every kind that is written, and how each stream's bodies are read and written."""

import base64
import hashlib
import json
import types
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from schemas import types as field_types
from schemas.events import access, session, upcast
from schemas.events.host import HostEvent, read_host_event
from schemas.events.installation import InstallationEvent, read_installation_event
from schemas.format.jcs import jcs
from streams.event_store.session_log import read_event

HEX = ("Hex16", "Hex32", "Hex64", "Hex96", "Hex128", "Hex158", "Hex1216")
LENGTHS = {id(getattr(field_types, name).__metadata__[0]): int(name[3:]) for name in HEX}
BASE64 = id(field_types.B64.__metadata__[0])
LABEL = id(field_types.Label.__metadata__[0])


class Kept(NamedTuple):
    """Bodies of one stream."""

    models: tuple[type[BaseModel], ...]
    read: Callable[[bytes], Any]
    write: Callable[[BaseModel], bytes]


def _canonical(event: BaseModel) -> bytes:
    return jcs(event.model_dump(mode="json", exclude_none=True))


def _members(union: Any) -> tuple[type[BaseModel], ...]:
    found: tuple[type[BaseModel], ...] = get_args(get_args(union)[0])
    return found


KEPT = {
    "CHUNKS": Kept(
        tuple(upcast.MODELS.values()), upcast.read_chunk_event, lambda e: e.model_dump_json().encode()
    ),
    "LIFECYCLE": Kept(_members(session.Event), read_event, _canonical),
    "HOSTS": Kept(_members(HostEvent), read_host_event, _canonical),
    "INSTALLATION": Kept(_members(InstallationEvent), read_installation_event, _canonical),
    "ACCESS": Kept(_members(access.Event), access.read_access_event, _canonical),
}


def samples() -> list[dict[str, str]]:
    """Of every kind one with all its members, and one with those that it cannot do without.

    written: the body as it is stored; means: what is read in it, written again.
    """
    return [
        {"stream": stream, "written": text, "means": means(stream, text)}
        for stream, kept in KEPT.items()
        for model in kept.models
        for text in _texts(kept, model)
    ]


def means(stream: str, written: str) -> str:
    event = KEPT[stream].read(written.encode())
    assert event is not None, f"of an unknown kind: {written[:200]}"
    return KEPT[stream].write(event).decode()


def _texts(kept: Kept, model: type[BaseModel]) -> tuple[str, str]:
    whole = kept.write(model.model_validate(_value_of(model, False)))
    least = {"type": model.model_fields["type"].default, **_value_of(model, True)}
    return whole.decode(), jcs(json.loads(json.dumps(least))).decode()


def _value_of(model: type[BaseModel], least: bool) -> dict[str, Any]:
    return {
        name: _sample(field.annotation, field.metadata, f"{model.__name__}.{name}", least)
        for name, field in model.model_fields.items()
        if not (least and not field.is_required())
    }


def _sample(annotation: Any, metadata: list[Any], name: str, least: bool) -> Any:
    """A value that is always the same for the same member."""
    if get_origin(annotation) is not None and getattr(annotation, "__metadata__", None):
        marks = [one for mark in annotation.__metadata__ for one in getattr(mark, "metadata", (mark,))]
        return _sample(get_args(annotation)[0], marks, name, least)
    marks = {id(mark) for mark in metadata}
    noise = hashlib.sha256(name.encode()).digest() * 38
    if length := next((LENGTHS[mark] for mark in marks if mark in LENGTHS), 0):
        return noise[:length].hex()
    if BASE64 in marks:
        return base64.b64encode(noise[:21]).decode()
    if LABEL in marks or annotation is str:
        return name.replace(".", "-")
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return arguments[-1]
    if origin is tuple:
        return () if least else (_sample(arguments[0], [], name, least),)
    if origin is dict:
        return {_sample(arguments[0], [], name, least): _sample(arguments[1], [], name, least)}
    if origin in (Union, types.UnionType):
        return _sample(arguments[0], [], name, least)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _value_of(annotation, least)
    if annotation is bool:
        return True
    assert annotation is int, (name, annotation)
    lowest = max((mark.ge for mark in metadata if hasattr(mark, "ge")), default=0)
    return int(max(lowest, noise[0] % 4 + 1))
