"""A stream in memory for a publisher, and the checks of what it received."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.keys import SessionKeys
from handlers.format.fragment import open_data, verify_fragment
from schemas.errors import Unavailable
from schemas.format.fragment import Fragment, Kind, parse
from schemas.ports import NO_TRACES
from schemas.ports.messages import PubAck
from schemas.subjects import recording
from streams.host.publisher import Grant

KEYS = SessionKeys(bytes(range(32)))


HOST = Ed25519PrivateKey.from_private_bytes(bytes(32))


GENESIS = bytes([7]) * 32


class Stream:
    """Holds fragments in the order of their arrival; every third attempt fails."""

    max_payload = 1 << 20
    tracer = NO_TRACES

    def __init__(self, flaky: bool = False) -> None:
        self.fragments: list[Fragment] = []
        self.ids: list[str] = []
        self.flaky = flaky
        self._attempts = 0

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> PubAck:
        self._attempts += 1
        await asyncio.sleep(0)
        if self.flaky and self._attempts % 3 == 0:
            raise Unavailable("no", code="nats.timeout")
        assert subject == recording("host-1", "s-1")
        assert headers is not None
        assert "Nats-Msg-Id" not in headers
        self.ids.append(headers["ce-id"])
        self.fragments.append(parse(data))
        return PubAck(len(self.fragments), False)

    def in_order(self) -> list[Fragment]:
        return sorted(self.fragments, key=lambda fragment: fragment.header.seq)


def grant(chunk_bytes: int = 1 << 18) -> Grant:
    return Grant("s-1", "host-1", bytes(16), GENESIS, KEYS.intake_public, HOST, chunk_bytes)


async def blocks(*data: bytes) -> AsyncIterator[bytes]:
    for block in data:
        await asyncio.sleep(0)
        yield block


def check_chain(fragments: list[Fragment]) -> bytes:
    """The plain bytes of a whole, signed, unbroken session."""
    public, head, part_key, plain = HOST.public_key().public_bytes_raw(), GENESIS, b"", b""
    for seq, fragment in enumerate(fragments):
        assert (fragment.header.seq, fragment.header.prev_head) == (seq, head)
        assert verify_fragment(public, fragment)
        head = fragment.head
        if fragment.header.kind is Kind.PART:
            part_key = KEYS.open_part_key(fragment)
        elif fragment.header.kind is Kind.DATA:
            plain += open_data(part_key, fragment)
    return plain
