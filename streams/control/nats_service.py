"""Answers commands: FastStream subscribers, one for each command of streams.control.commands.

1. Core request and reply: nothing is stored; a request that nobody heard fails at its sender, at once.
2. One queue group: of several services one answers.
3. It knows names, never what a command does.
4. Its connection begins as every other one does (`dial`): FastStream's own way would send credentials of a
   tls:// URL in plain text, and ends for good at a refusal that passes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from faststream.nats import NatsBroker, NatsMessage

from schemas import subjects
from streams.control.commands import COMMANDS, Control

QUEUE = "lucid-control"
AT_ONCE = 32
"""Requests of one command that are worked on together: `start` and `destroy` wait for the conductor."""

Dial = Callable[[], Awaitable[Any]]
"""Gives a client of the driver that is connected, and stays so until it is closed."""


class Broker(NatsBroker):
    """FastStream's broker over a connection that `dial` gives."""

    def __init__(self, dial: Dial) -> None:
        super().__init__(logger=None)
        self._dial = dial

    async def _connect(self) -> Any:
        connection = await self._dial()
        self.config.connect(connection)
        return connection


def control_plane(control: Control, dial: Dial) -> NatsBroker:
    """A broker with every command subscribed; `start` it to serve, `stop` it to finish what is under way."""
    broker = Broker(dial)
    for name in COMMANDS:
        _subscribe(broker, control, name)
    return broker


def _subscribe(broker: NatsBroker, control: Control, name: str) -> None:
    subscriber = broker.subscriber(
        subjects.command(name),
        queue=QUEUE,
        max_workers=AT_ONCE,
        decoder=_as_it_is,
        title=name,
        description=COMMANDS[name].__doc__,
    )

    @subscriber
    async def answer(body: bytes) -> bytes:
        return await control.answer(name, body)


async def _as_it_is(message: NatsMessage) -> bytes:
    """Requests are read by the command, which can answer what is wrong with them."""
    return message.body
