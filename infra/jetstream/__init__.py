"""Owns what is said to NATS JetStream; behind the ports of schemas/ports/broker.py, whose promises it keeps.

For the bench there is a plain client beside it (`plain_client`). FastStream has a connection of its own; it
begins here, too (`client`).

client_patches (what nats-py must bear) · wire (its bytes) · client (how a connection begins)
· connection (requests, reconnects) · limits (what the server must be) · jet (what callers may do)
· reads (direct gets) · pull_requests, consumer, follower (consumers) · declare (streams and consumers)
· decode, errors (theirs to ours).
"""

from infra.jetstream.client import Client, Where
from infra.jetstream.client_patches import harden
from infra.jetstream.connection import CONNECT_TIMEOUT_S
from infra.jetstream.consumer import PullConsumer
from infra.jetstream.follower import Follower
from infra.jetstream.jet import Jet, connect
from schemas.ports.messages import (
    ConsumerSpec,
    Discontinuity,
    Message,
    PubAck,
    StreamInfo,
    StreamSpec,
)

harden()

__all__ = [
    "CONNECT_TIMEOUT_S",
    "Client",
    "ConsumerSpec",
    "Discontinuity",
    "Follower",
    "Jet",
    "Message",
    "PubAck",
    "PullConsumer",
    "StreamInfo",
    "StreamSpec",
    "Where",
    "connect",
]
