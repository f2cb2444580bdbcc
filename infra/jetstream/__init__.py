"""The room of NATS JetStream: the drivers behind the ports of schemas/ports/broker.py.

    jet              the port Jet: every call that a service may make
    client           how a connection begins            connection   requests, reconnects
    reads            direct gets, without a consumer    declare      streams, consumers, the JetStream API
    consumer         a durable consumer (work queue)    follower     a stream in order, without acks
    merged_follower  several streams at once            read_pace    how much and how closely followers read
    pull_requests    open requests of one reader        decode, errors   NATS messages and errors to ours
    wire, payloads   bytes between client and socket    wire_parser  messages out of received bytes
    direct_callbacks   messages passed on without a task of the driver
    publish_command  the command of a publish           limits       checks the server
    client_patches   mends nats-py
    plain_client     the baseline of `lucid bench`

It may import schemas and nats-py; nothing else may import nats. FastStream's connection begins in
client.py, too. Begin with jet.py.
"""

from infra.jetstream.client import Client, Where
from infra.jetstream.client_patches import patch_nats_py
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

patch_nats_py()

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
