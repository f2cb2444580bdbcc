"""Owns what is said to NATS JetStream; behind the ports of schemas/ports/broker.py, whose promises it keeps.

Beside it only infra/bare_nats imports the driver, for the bench. FastStream has a connection of its own; it
begins here, too (`client`).

driver (what it must bear) · wire (its bytes) · client (how a connection begins) · connection (requests,
reconnects) · limits (what the server must be) · jet (what callers may do)
· reads (direct gets) · pulling, pull, follow (consumers) · declare (streams and consumers) · decode, errors
(theirs to ours).
"""

from infra.jetstream.client import Client, Where
from infra.jetstream.connection import CONNECT_TIMEOUT_S
from infra.jetstream.driver import harden
from infra.jetstream.follow import Follower
from infra.jetstream.jet import Jet, connect
from infra.jetstream.pull import PullReader
from schemas.jetstream import (
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
    "PullReader",
    "StreamInfo",
    "StreamSpec",
    "Where",
    "connect",
]
