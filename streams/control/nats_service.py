"""Serves commands over NATS: one FastStream subscriber for each command of streams.control.commands.

1. Core request and reply: nothing is stored. A request without a listening service fails at once.
2. One queue group: one of several services answers.
3. It knows the names of commands, never their effects.
4. Its connection is made by `dial`, as every other one. FastStream would send the credentials of a tls:// URL
   in plain text, and would end for good at a refusal that passes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from faststream.nats import NatsBroker, NatsMessage

from schemas import subjects
from streams.control.commands import Control

QUEUE = "lucid-control"
AT_ONCE = 32
"""Requests of one command that are carried out together: `start` and `destroy` wait for the conductor."""

Dial = Callable[[], Awaitable[Any]]
"""Returns a connected client of the driver, which reconnects until it is closed."""


class Broker(NatsBroker):
    """FastStream's broker over the connection that `dial` returns."""

    def __init__(self, dial: Dial) -> None:
        super().__init__(logger=None)
        self._dial = dial

    async def _connect(self) -> Any:
        connection = await self._dial()
        self.config.connect(connection)
        return connection


def control_plane(control: Control, dial: Dial) -> NatsBroker:
    """A broker with every command subscribed. `start` serves; `stop` finishes the requests under way."""
    broker = Broker(dial)
    for name in control.handlers:
        _subscribe(broker, control, name)
    return broker


def _subscribe(broker: NatsBroker, control: Control, name: str) -> None:
    subscriber = broker.subscriber(
        subjects.command(name),
        queue=QUEUE,
        max_workers=AT_ONCE,
        decoder=_undecoded,
        title=name,
        description=control.handlers[name].__doc__,
    )

    @subscriber
    async def answer(body: bytes) -> bytes:
        return await control.answer(name, body)


async def _undecoded(message: NatsMessage) -> bytes:
    """The command decodes its request: it can answer that it is malformed."""
    return message.body
