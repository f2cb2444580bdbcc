"""Owns the control plane's connection: FastStream subscribers, one for each command of streams.control.

1. Core request and reply: nothing is stored; a request that nobody heard fails at its sender, at once.
2. One queue group: of several services one answers.
3. It knows names, never what a command does.
"""

import logging

from faststream.nats import NatsBroker, NatsMessage

from schemas import subjects
from streams.control import COMMANDS, Control

QUEUE = "lucid-control"
AT_ONCE = 32
"""Requests of one command that are worked on together: `start` and `destroy` wait for the conductor."""
RECONNECT_WAIT_S = 1
PING_INTERVAL_S = 15

log = logging.getLogger("lucid.control")


def control_plane(control: Control, url: str) -> NatsBroker:
    """A broker with every command subscribed; `start` it to serve, `stop` it to finish what is under way."""
    broker = NatsBroker(
        [one.strip() for one in url.split(",")],
        name="lucid-control",
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_WAIT_S,
        ping_interval=PING_INTERVAL_S,
        logger=None,
    )
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
