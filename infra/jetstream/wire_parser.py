"""Parses what a server sends: nats-py's parser, with a short way for messages and a landing for large ones.

1. While the driver's reader waits, `feed` takes received bytes inside the transport's own call: a message for
   a direct callback (direct_callbacks.py) wakes no task. Everything else goes to the driver's reader, with
   all that came after it: the order of the connection stays.
2. A large payload in pieces is received into its final memory.
3. Both ways share one state: any cut between two calls is allowed, and either may go on.
"""

import re
from typing import Any

from nats.aio.client import Client
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

from infra.jetstream import direct_callbacks
from infra.jetstream.payloads import Landing
from infra.jetstream.wire import WireTransport
from schemas.format.digest import Buffer

LARGE_BYTES = 64 << 10
"""A payload with so many bytes still to come is received into its final memory."""
LINE_BYTES = 4096
"""A longer line is no beginning of a message."""
_NAME = rb"[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(?:([^ \t\r\n]+)[ \t]+)?"
"""Subject, subscription, and a reply."""
_LINE = re.compile(rb"(?:MSG" + _NAME + rb"|HMSG" + _NAME + rb"([0-9]+)[ \t]+)([0-9]+)\r\n")


def install(client: Client) -> WireTransport:
    """Replace transport and parser of a client that is not connected yet; return the transport."""
    transport = WireTransport()
    client._transport, client._ps = transport, WireParser(client, transport)
    return transport


class WireParser(Parser):
    """The parser of one client, over one connection after another."""

    def __init__(self, client: Client, transport: WireTransport) -> None:
        self._land = transport.land
        super().__init__(client)
        transport.feed = self.feed
        transport.on_connect = self.reset  # a rest of the old connection would count as the beginning

    def reset(self) -> None:
        super().reset()
        self._landing: Landing | None = None
        self._ended = CRLF_SIZE
        """Received bytes of the line end behind a complete landing."""

    def feed(self, data: bytes) -> bytes | None:
        """Deliver messages to direct callbacks. Returns the bytes that `parse` must have next; None: none."""
        if self._landing is not None or self.state == AWAITING_MSG_PAYLOAD:
            take = direct_callbacks.taker(self.nc, self.msg_arg["sid"])
            if take is None:
                return data
            if self._landing is not None:
                data = self._landing.put(data)
                if self._landing.rest:
                    return None
                landing = self._landed()
                self._deliver(take, landing.payload, landing.headers)
        ends = min(CRLF_SIZE - self._ended, len(data))
        self._ended += ends
        if self.buf:
            data = bytes(self.buf) + data[ends:]
            self.buf.clear()
            ends = 0
        return self._feed_from(data, ends)

    def _feed_from(self, data: bytes, at: int) -> bytes | None:
        """Deliver what begins at `at`, with no byte of it in `buf`; an incomplete message stays there."""
        while at < len(data):
            begin = at
            if self.state == AWAITING_CONTROL_LINE:
                line = _LINE.match(data, at)
                if line is None:
                    if data[at : at + 1] in b"HM" and data.find(b"\r\n", at, at + LINE_BYTES) < 0:
                        break  # the line is not complete
                    return data[at:]
                at = line.end()
                self._begin_message(line)
            take = direct_callbacks.taker(self.nc, self.msg_arg["sid"])
            if take is None:
                if at > begin:
                    self.state, self.header_needed = AWAITING_CONTROL_LINE, 0
                return data[begin:]
            body, end = at + self.header_needed, at + self.needed
            if end + CRLF_SIZE > len(data):
                if len(data) >= body and end - len(data) >= LARGE_BYTES:
                    self._begin_landing(data[at:body], memoryview(data)[body:])
                    return None
                break
            self._deliver(take, data[body:end], data[at:body])
            at = end + CRLF_SIZE
        self.buf += data[at:]
        return None

    def _begin_message(self, line: "re.Match[bytes]") -> None:
        subject, sid, reply, *with_headers, header_size, total = line.groups()
        if header_size is not None:
            subject, sid, reply = with_headers
        self.msg_arg = {"subject": subject, "sid": int(sid), "reply": reply or b""}
        self.needed, self.header_needed = int(total), int(header_size or 0)
        self.state = AWAITING_MSG_PAYLOAD

    def _deliver(self, take: direct_callbacks.Take, payload: bytes | bytearray, block: bytes) -> None:
        arguments: dict[str, Any] = self.msg_arg
        names = arguments["sid"], arguments["subject"], arguments["reply"]
        self.header_needed, self.state = 0, AWAITING_CONTROL_LINE
        direct_callbacks.deliver(self.nc, take, names, payload, block or None)

    async def parse(self, data: bytes = b"") -> None:
        if self._landing is not None:
            data = self._landing.put(data)
            if self._landing.rest:
                return
            landing, arguments = self._landed(), self.msg_arg
            self.header_needed, self.state = 0, AWAITING_CONTROL_LINE
            names = arguments["sid"], arguments["subject"], arguments["reply"]
            await self.nc._process_msg(*names, landing.payload, landing.headers or None)
        ends = min(CRLF_SIZE - self._ended, len(data))
        self._ended += ends
        await super().parse(data[ends:])
        if self.state == AWAITING_MSG_PAYLOAD and len(self.buf) >= self.header_needed:
            size = self.needed - self.header_needed
            if size - (len(self.buf) - self.header_needed) >= LARGE_BYTES:
                headers, begun = self.buf[: self.header_needed], self.buf[self.header_needed :]
                self.buf.clear()
                self._begin_landing(bytes(headers), begun)

    def _begin_landing(self, headers: bytes, begun: Buffer) -> None:
        self._landing = Landing(headers, self.needed - self.header_needed, begun)
        self._land(self._landing)

    def _landed(self) -> Landing:
        """End the landing that is complete."""
        landing = self._landing
        assert landing is not None
        self._landing, self._ended = None, 0
        self._land(None)
        return landing
