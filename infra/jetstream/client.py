"""Dials NATS servers: every connection of this program begins here.

1. With tls:// no credentials leave before the link is secure and the certificate is trusted. A server that
   offers no TLS is refused. A silent server may want TLS first (`handshake_first`), and gets it.
2. `Where` names the server before every try, so a client never dials an outdated address. While it names
   none, the client waits.
3. Every failure becomes one of our errors (`Failed.error`). Texts of a server are shown without credentials.
4. It overrides private methods of nats-py's client; that is why nats-py is pinned.
"""

import asyncio
import json
import random
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlparse

import nats.errors
from nats.aio.client import Client as DriverClient
from nats.aio.client import Srv

from infra.jetstream import errors, wire_parser
from schemas.buffers import Bytes
from schemas.config.nats_url import Address, BadUrl, addresses
from schemas.errors import LucidError, Misuse

HANDSHAKE_S = 4.0
"""From the connection to the answer to CONNECT."""
TLS_FIRST_S = 1.0
"""With tls://, a server that has not begun to speak by then is treated as one that wants TLS first."""
RECONNECT_WAIT_S = 0.25
PING_INTERVAL_S = 15
SHOWN_CHARACTERS = 60
"""The length of a server's text that an error repeats."""

Where = Callable[[], str | None]
"""Returns the URLs that are valid now; None: not known yet."""


class Failed(nats.errors.Error):
    """A try that failed. final: every later try at this address will fail too."""

    def __init__(self, error: LucidError, address: str = "", *, final: bool = False) -> None:
        super().__init__(error.message)
        self.error, self.address, self.final = error, address, final


class Client(DriverClient):
    """nats-py's client, with our own beginning of a connection."""

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.wire = wire_parser.install(self)
        self.addresses: tuple[Address, ...] = ()
        self.urls = ""
        self._where = where

    async def dial(self, **options: Any) -> None:
        """Connect, and reconnect for ever. Raises Misuse (config.nats_url)."""
        self._renew()
        await self.connect(
            [],
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # any number of seconds
            ping_interval=PING_INTERVAL_S,
            **options,
        )

    @property
    def shown(self) -> str:
        """The URLs without credentials."""
        return ",".join(address.shown for address in self.addresses)

    def put(self, pieces: Iterable[Bytes]) -> None:
        """Send a command, after all earlier ones. The caller knows that the connection stands."""
        if self._pending:  # from the time of a reconnect
            self.wire.writelines(self._pending)
            self._pending, self._pending_data_size = [], 0
        for piece in pieces:
            self.wire.write(piece)

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        if self.is_connected:
            self.put((cmd,))
        else:
            await super()._send_command(cmd, priority)

    def _setup_server_pool(self, connect_url: object) -> None:
        """Do nothing: `_renew` fills the pool."""

    def _renew(self) -> bool:
        """Fill the pool with the current URLs; False: they are not known."""
        urls = self._where()
        if urls is not None and urls != self.urls:
            try:
                self.addresses = addresses(urls)
            except BadUrl as error:
                raise Misuse(f"NATS_URL is not a valid URL: {error}", code="config.nats_url") from None
            self.urls = urls
            self._server_pool = [Srv(urlparse(address.shown)) for address in self.addresses]
            random.shuffle(self._server_pool)
        return urls is not None

    async def _select_next_server(self) -> None:
        while True:
            if not self._renew():
                await self._error_cb(Failed(errors.nowhere()))
                await asyncio.sleep(RECONNECT_WAIT_S)
                continue
            server = self._server_pool[0]
            pause_s = (server.last_attempt or 0) + RECONNECT_WAIT_S - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
                continue  # the address may have changed meanwhile
            self._server_pool.append(self._server_pool.pop(0))
            try:
                await self._connect_to_server(server)
            except Exception as error:
                server.reconnects += 1
                self._err = error
                await self._error_cb(error)
                continue
            self._current_server = server
            return

    async def _process_err(self, err_msg: str) -> None:
        """Reconnect after an error of the server: nats-py would close for good, in silence."""
        text = err_msg.strip("'")
        if text.startswith("permissions violation"):  # about one request; the connection stands
            await self._error_cb(nats.errors.Error(f"nats: {text}"))
            return
        assert self._current_server is not None
        failed = self._refused(self._current_server.uri.geturl(), self._shown_text(text.encode()))
        await self._error_cb(failed)
        await self._process_op_err(failed)

    async def _process_connect_init(self) -> None:
        """Shake hands. On failure close the socket and raise Failed."""
        assert self._current_server is not None
        self._status = DriverClient.CONNECTING
        shown = self._current_server.uri.geturl()
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._greet(shown)
        except TimeoutError:
            self.wire.abort()
            raise Failed(errors.silent(shown), shown) from None
        except OSError as error:
            self.wire.abort()
            raise Failed(errors.hung_up(shown, str(error)), shown) from None
        except BaseException:
            self.wire.abort()
            raise
        self._status = DriverClient.CONNECTED
        self._pongs, self._pings_outstanding = [], 0
        for name, work in (
            ("_reading_task", self._read_loop()),
            ("_ping_interval_task", self._ping_interval()),
            ("_flusher_task", self._flusher()),
        ):
            setattr(self, name, asyncio.get_running_loop().create_task(work))

    async def _greet(self, shown: str) -> None:
        info, secure = await self._hello(shown)
        server = self._current_server
        assert server is not None
        wanted = server.uri.scheme == "tls"
        if wanted and not (secure or info.get("tls_required") or info.get("tls_available")):
            raise Failed(errors.no_tls(shown), shown, final=True)
        try:
            self._server_info = dict(info)
            self._max_payload = int(info["max_payload"])
            self._client_id, self._client_ip = info.get("client_id"), info.get("client_ip")
            server.server_version = info.get("version")
            await self._process_info(self._server_info, initial_connection=True)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Failed(
                errors.foreign(shown, "INFO, and no description of a server"), shown, final=True
            ) from None
        if not secure and (wanted or info.get("tls_required")):
            await self._secure(shown)
        self._ps.reset()
        self.wire.write(self._connect_command())
        self.wire.write(b"PING\r\n")
        await self.wire.drain()
        await self._welcome(shown)

    async def _hello(self, shown: str) -> tuple[Mapping[str, Any], bool]:
        """Return the server's greeting, and whether it came over TLS."""
        assert self._current_server is not None
        secure = False
        try:
            async with asyncio.timeout(TLS_FIRST_S if self._current_server.uri.scheme == "tls" else None):
                line = await self.wire.readline()
        except TimeoutError:
            await self._secure(shown)
            secure, line = True, await self.wire.readline()
        if not line:
            raise Failed(errors.hung_up(shown, self.wire.why), shown)
        try:
            if not line.startswith(b"INFO "):
                raise ValueError
            info = json.loads(line[5:])
            if not isinstance(info, dict):
                raise ValueError
        except ValueError:
            raise Failed(errors.foreign(shown, self._shown_text(line)), shown, final=True) from None
        return info, secure

    async def _secure(self, shown: str) -> None:
        """Start TLS. Raises Failed: the server has none, or its certificate is not trusted."""
        server = self._current_server
        assert server is not None
        try:
            await self.wire.connect_tls(
                server.tls_name or str(server.uri.hostname), self.ssl_context, 0, int(HANDSHAKE_S)
            )
        except ssl.SSLCertVerificationError as error:
            raise Failed(errors.untrusted(shown, error.verify_message), shown, final=True) from None
        except ssl.SSLError as error:
            raise Failed(errors.no_tls(shown, error.reason or ""), shown, final=True) from None

    async def _welcome(self, shown: str) -> None:
        """Return when the server has accepted CONNECT."""
        while True:
            line = await self.wire.readline()
            verb = line[:5].rstrip(b"\r\n").upper()
            if not line:
                raise Failed(errors.hung_up(shown, self.wire.why), shown)
            if verb.startswith(b"PONG"):
                return
            if verb.startswith(b"-ERR"):
                raise self._refused(shown, self._shown_text(line[4:]).strip("' "))
            if verb.startswith(b"PING"):
                self.wire.write(b"PONG\r\n")
                await self.wire.drain()
            elif not verb.startswith((b"INFO", b"+OK")):
                raise Failed(errors.foreign(shown, self._shown_text(line)), shown, final=True)

    def _refused(self, shown: str, text: str) -> Failed:
        lowered = text.lower()
        if "authorization" in lowered or "authentication expired" in lowered or "revoked" in lowered:
            return Failed(errors.denied(shown, text), shown, final=True)
        if "tls required" in lowered:
            return Failed(errors.tls_wanted(shown), shown, final=True)
        return Failed(errors.refused(shown, text), shown)

    def _connect_command(self) -> bytes:
        """Return CONNECT with the credentials of this address, or of the first one for an unknown address."""
        assert self._current_server is not None
        place = self._current_server.uri.netloc
        known = {address.place: address for address in self.addresses}
        mine = known.get(place, self.addresses[0])
        self._auth_configured = bool(mine.user or mine.token)
        self.options.update(user=mine.user or None, password=mine.password or None, token=mine.token or None)
        return super()._connect_command()

    def _shown_text(self, line: bytes) -> str:
        """Return a server's text without credentials, control characters and excess length."""
        for address in self.addresses:
            for secret in (address.password, address.token):
                line = line.replace(secret.encode(), b"***") if secret else line
        text = line.decode("ascii", errors="replace").strip()
        return "".join(letter if letter.isprintable() else "?" for letter in text)[:SHOWN_CHARACTERS]
