"""Bounds what one connection may hold: the time and the length of a request's head.

1. A head that is not complete HEAD_S after its first byte, or after the connection was made, closes the
   connection. So does a head of more than HEAD_BYTES.
2. Between two requests the server's own keep-alive time counts, in the body that of the route.
3. uvicorn bounds neither. It is pinned, and these are its protocol's own callbacks.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 20.0
HEAD_BYTES = 64 << 10


class Connection(HttpToolsProtocol):
    """One connection of uvicorn, with bounds."""

    _deadline: asyncio.TimerHandle | None = None
    """While a head is awaited."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Not on_message_begin: empty lines before a request begin no message.
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        super().data_received(data)
        if self._deadline is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The head of a request is too long.")

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def _head_is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
