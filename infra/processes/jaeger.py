"""Runs a Jaeger of our own, which keeps the newest traces in memory and shows them in a browser.

1. It listens on 127.0.0.1 only: on Jaeger's usual ports, or on others where those are taken. The ports are
   held until `stop`: of two that start at once, each has ports of its own.
2. It is supervised and dies with its supervisor, as the NATS server. A restart forgets its traces.
3. The system works without it. No process of ours waits for it.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from infra.disk.data_dir import make_writable_folder
from infra.processes.children import Child, dying_with_us
from schemas.errors import Unavailable

LOOPBACK = "127.0.0.1"
USUAL_PORTS = (4318, 16686, 16685, 13133)
"""For spans over OTLP, for people and programs over HTTP, for programs over gRPC, for its health."""
MAX_TRACES = 50_000
MEMORY_MIB = 512
START_S, ASK_S = 30.0, 0.05
BUILT = Path(platformdirs.user_cache_dir("lucid-sessions")) / "services" / "jaeger"
"""Where `just services` puts it."""


def find_jaeger() -> Path | None:
    """Return the program: JAEGER_BIN, else `jaeger` on PATH, else one that `just services` has built."""
    named = os.environ.get("JAEGER_BIN", "")
    found = shutil.which(named) if named else shutil.which("jaeger") or shutil.which(BUILT)
    return None if found is None else Path(found)


class Jaeger:
    """A supervised Jaeger. Making one raises Unavailable (jaeger.no_binary)."""

    def __init__(self, folder: Path, ports: Sequence[int] = USUAL_PORTS) -> None:
        """folder: for its configuration and its log; made if need be. ports: 0 is any."""
        program = find_jaeger()
        if program is None:
            raise Unavailable(
                "the program jaeger (version 2) is not on this machine",
                code="jaeger.no_binary",
                hint="set JAEGER_BIN to it, put it on PATH, or build it from a clone of ours: just services",
            )
        make_writable_folder(folder)
        self._config, self._log = folder / "jaeger.yaml", folder / "jaeger.log"
        self._held = [_held(port) for port in ports]
        self._ports = [int(held.getsockname()[1]) for held in self._held]
        command = dying_with_us((str(program), "--config", str(self._config)))
        environment = {"GOMEMLIMIT": f"{MEMORY_MIB}MiB"}
        self._child = Child("jaeger", command, environment, self._log, before=self._write_config)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def otlp_url(self) -> str:
        """Where spans are sent."""
        return f"http://{LOOPBACK}:{self._ports[0]}"

    @property
    def ui_url(self) -> str:
        """Where people look at traces, and programs read them: /api/v3/traces/<trace id>."""
        return f"http://{LOOPBACK}:{self._ports[1]}"

    async def start(self) -> None:
        """Return when it takes spans. Raises Unavailable (jaeger.no_start)."""
        await self._child.start()
        try:
            async with asyncio.timeout(START_S):
                for port in self._ports[:2]:
                    await self._until_open(port)
        except TimeoutError:
            await self.stop()
            raise Unavailable(
                "jaeger did not start", code="jaeger.no_start", hint=f"read {self._log}"
            ) from None

    async def stop(self) -> None:
        await self._child.stop()
        for held in self._held:
            held.close()

    async def _until_open(self, port: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(LOOPBACK, port)
                writer.close()
                return
            await asyncio.sleep(ASK_S)

    def _write_config(self) -> None:
        otlp, ui, query, health = (f"{LOOPBACK}:{port}" for port in self._ports)
        storage = {"backends": {"memory": {"memory": {"max_traces": MAX_TRACES}}}}
        config = {
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
            },
            "extensions": {
                "healthcheckv2": {"use_v2": True, "http": {"endpoint": health}},
                "jaeger_query": {
                    "storage": {"traces": "memory"},
                    "http": {"endpoint": ui},
                    "grpc": {"endpoint": query},
                },
                "jaeger_storage": storage,
            },
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": otlp}}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        }
        self._config.write_text(json.dumps(config, indent=2))


def _held(port: int) -> socket.socket:
    """Return a socket that holds the port, or any other if that is taken; Jaeger listens beside it."""
    held = socket.socket()
    try:
        held.bind((LOOPBACK, port))
    except OSError:
        held.bind((LOOPBACK, 0))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return held
