"""Serves commands over NATS: one FastStream subscriber for each command of streams.control.commands.

1. Core request and reply: nothing is stored. A request without a listening service fails at once.
2. One queue group: one of several services answers.
3. It knows the names of commands, never their effects.
4. Its connection is made by `dial`, as every other one. FastStream would send the credentials of a tls:// URL
   in plain text, and would end for good at a refusal that passes.
5. FastStream converts no argument: a command decodes its own body, and checks it by its own model.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from faststream.nats import NatsBroker, NatsMessage
from faststream.specification import AsyncAPI

from schemas import subjects
from schemas.api.problem import request_id
from schemas.ports.metrics import NO_METER, Meter
from schemas.ports.telemetry import CURRENT, NO_TRACES, REQUEST, Tracer
from streams.control.client import REQUEST_HEADER
from streams.control.commands import Control
from streams.control.measured import measured
from streams.control.requests import REQUESTS, schemas
from streams.control.traced import traced

QUEUE = "lucid-control"
AT_ONCE = 32
"""Requests of one command that are carried out together: `start` and `destroy` wait for the conductor."""

ABOUT = (
    "A request is one JSON object. Its members at_us, who and cause may be left out; at_us says nothing. "
    'The answer is {"ok": {…}}, or {"error": {kind, code, message, hint, place}}.'
)

Answer = Callable[[str, bytes], Awaitable[bytes]]
Dial = Callable[[], Awaitable[Any]]
"""Returns a connected client of the driver, which reconnects until it is closed."""


class Broker(NatsBroker):
    """FastStream's broker over the connection that `dial` returns."""

    def __init__(self, dial: Dial) -> None:
        super().__init__(logger=None, apply_types=False)
        self._dial = dial

    async def _connect(self) -> Any:
        connection = await self._dial()
        self.config.connect(connection)
        return connection


def control_plane(
    control: Control, dial: Dial, meter: Meter = NO_METER, tracer: Tracer = NO_TRACES
) -> NatsBroker:
    """A broker with every command subscribed. `start` serves; `stop` finishes the requests under way."""
    broker, answer = Broker(dial), measured(meter, traced(tracer, control.answer))
    for name in control.handlers:
        _subscribe(broker, name, answer)
    return broker


def document(commands: Iterable[str], version: str) -> dict[str, Any]:
    """The AsyncAPI document of these commands, as `control_plane` subscribes them."""
    broker = NatsBroker()
    for name in commands:
        _subscribe(broker, name, _unanswered)
    made = AsyncAPI(broker, title="Lucid Sessions: commands", version=version, description=ABOUT)
    found: dict[str, Any] = made.to_specification().to_jsonable()
    del found["servers"]  # NATS_URL says where
    for channel in found["channels"].values():
        del channel["servers"]
    found["components"]["schemas"] = schemas({name: f"{name}:Message:Payload" for name in commands})
    return found


async def _unanswered(_name: str, body: bytes) -> bytes:
    return body


def _subscribe(broker: NatsBroker, name: str, answer: Answer) -> None:
    subscriber = broker.subscriber(
        subjects.command(name),
        queue=QUEUE,
        max_workers=AT_ONCE,
        decoder=_undecoded,
        title=name,
        description=REQUESTS[name].effect,
    )

    @subscriber
    async def reply(body: bytes) -> bytes:
        return await answer(name, body)


async def _undecoded(message: NatsMessage) -> bytes:
    """The command decodes its request: it can answer that it is malformed."""
    headers = message.headers or {}  # the request is answered in this task
    CURRENT.set(headers.get("traceparent", ""))
    REQUEST.set(request_id(headers.get(REQUEST_HEADER, "")))
    return message.body
