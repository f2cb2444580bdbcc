"""Runs a whole system on one machine: starts its parts in order, watches them, and stops them in order.

    data directory (lock) → nats-server → streams → conductor, workers, HTTP → run.json, and back the same way

1. The process that holds the lock starts everything; all others attach through run.json
   (streams/cli/attach.py).
2. run.json appears when commands are answered, and is removed before they stop being answered. If it is
   removed by others, it is written again. If the whole folder is removed, the system ends.
3. Everything dies with the supervisor. The next start clears everything that a killed one left.
4. A Jaeger that is asked for starts first and ends last: it takes the spans of the others' ends.
5. This process holds the port of the API while it runs, and hands the socket to the child that serves it.
   Nobody else gets the port, neither at the start nor while that child is started again.
6. The password of the server is in run.json and in the children's environment. Both are readable by us alone.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import LucidError, Unauthenticated, Unavailable
from schemas.ports import Child, DataDir, Jet, Server
from schemas.ports.metrics import Meter
from schemas.ports.processes import TraceServer
from schemas.subjects import METRICS
from streams.control.client import call
from streams.event_store.topology import declare
from streams.roles.drivers import Installation, Jaeger, connected, held_port, own_pid, supervised, traced

LOOPBACK = "127.0.0.1"
READY_S = 180.0
"""A log of 100,000 sessions without its list of open ones takes half a minute on a busy machine."""
ASK_S, ANSWER_S = 0.1, 0.3
WATCH_S = 2.0
STARTS_MOST = 4
"""A child that needs more starts before commands are answered will not live."""
HTTP, SUPERVISOR = "http", "up"
"""The names of two processes among measurements."""


@dataclass(frozen=True, slots=True)
class System:
    """A system that runs. jet: the supervisor's own connection. watching: ends only with an error.

    api_url: where all roles are served over HTTP; empty: they are not. jaeger: shows traces; None: none runs.
    """

    data: DataDir
    server: Server
    children: tuple[Child, ...]
    jet: Jet
    watching: "asyncio.Task[None]"
    api_url: str
    urls: Mapping[str, str]
    """Where others reach roles over HTTP, for each whose URL or host is set."""
    jaeger: TraceServer | None


@asynccontextmanager
async def running(
    here: Installation, *, quiet: bool, http: bool = True, jaeger: bool = False
) -> AsyncIterator[System]:
    """Start everything, and stop it in order afterwards.

    quiet: the children's output goes to logs/ only. http: serve the API, too. jaeger: run one, and trace.

    Raises Unavailable (datadir.locked, nats.*, server.slow, server.child), Misuse (config.encryption_key),
    Denied (keys.*): a wrong ENCRYPTION_KEY, or keys/ and the log do not belong together.
    """
    data = here.data
    data.lock()
    async with AsyncExitStack() as stack:
        stack.callback(data.unlock)
        traces = Jaeger(data.path / "jaeger") if jaeger else None
        if traces is not None:
            stack.push_async_callback(traces.stop)
            await traces.start()
        otlp_url = traces.otlp_url if traces is not None else ""
        await asyncio.to_thread(here.sweep)
        await asyncio.to_thread(
            here.keyring.keks
        )  # a wrong ENCRYPTION_KEY shows now, not with the first session
        server = here.server()
        await server.start()
        stack.push_async_callback(server.stop)
        jet = await stack.enter_async_context(connected(server.url, "lucid-up", credential=here.credential))
        await stack.enter_async_context(traced(jet, "lucid-up", data, otlp_url))
        folder = here.logged_keys(jet)
        await folder.check()  # before streams are made: where they are, others take it for a log
        await declare(jet, server.max_file, shards=here.settings.shards)
        await folder.open()
        named = roles(here.settings.worker_processes)
        listening = stack.enter_context(held_port(here.settings.services["API"].port)) if http else None
        port = listening.getsockname()[1] if listening else 0
        sockets = {HTTP: listening.fileno()} if listening else {}
        named |= {name: (name, "--fd", str(fd)) for name, fd in sockets.items()}
        environment = {"NATS_URL": server.url, "LUCID_DATA": str(data.path)}
        if otlp_url:
            environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{otlp_url}/v1/traces"
        children = tuple(
            _child(name, role, environment, data.logs / f"{name}.log" if quiet else None, sockets.get(name))
            for name, role in named.items()
        )
        stack.push_async_callback(_stop_all, children)
        for child in children:
            await child.start()
        await _until_answered(jet, data, children)
        api_url = f"{'https' if here.tls else 'http'}://{LOOPBACK}:{port}" if port else ""
        if port:
            await _until_served(jet, data, children)
        here.process, here.expects = SUPERVISOR, tuple(child.name for child in children)
        measure_children(here.meter, children)
        await stack.enter_async_context(here.measured(jet))
        urls = here.settings.named_urls(port) if port else {}
        run = {"pid": own_pid(), "nats_url": server.url, "api_url": api_url, "urls": urls}
        if traces is not None:
            run |= {"otlp_url": otlp_url, "jaeger_url": traces.ui_url}
        stack.callback(data.remove_run)
        data.write_run(run)
        watching = asyncio.create_task(_watch_folder(data, run))
        stack.callback(watching.cancel)
        yield System(data, server, children, jet, watching, api_url, urls, traces)


def measure_children(meter: Meter, children: tuple[Child, ...]) -> None:
    """Show how often each child was started."""
    meter.rows(
        "lucid_child_starts",
        "Starts of a supervised process.",
        ("child",),
        lambda: {(child.name,): child.starts for child in children},
        rises=True,
    )


async def _watch_folder(data: DataDir, run: Mapping[str, Any]) -> None:
    """Keep run.json until the folder is gone. Raises Unavailable (datadir.gone)."""
    while data.is_there():
        if not data.has_run():
            with suppress(OSError):  # a full disk: the next round tries again
                data.write_run(run)
        await asyncio.sleep(WATCH_S)
    raise Unavailable(
        f"{data.path} was removed or replaced while it was in use",
        code="datadir.gone",
        hint="put it back, then start again: lucid up",
    )


def roles(workers: int) -> dict[str, tuple[str, ...]]:
    """The words behind `lucid serve`, by the name of the child."""
    groups = {
        f"worker-{group}": ("worker", "--group", str(group), "--groups", str(workers))
        for group in range(workers)
    }
    return {"conductor": ("conductor",), **(groups if workers > 1 else {"worker": ("worker",)})}


def _child(
    name: str, role: tuple[str, ...], environment: Mapping[str, str], log: Path | None, fd: int | None
) -> Child:
    """fd: a socket that it takes over."""
    # -P: a folder named like one of our packages, where lucid happens to be called, is not ours
    command = (sys.executable, "-P", "-m", "streams.cli.main", "serve", *role, "--parent", str(own_pid()))
    return supervised(name, command, environment, log, () if fd is None else (fd,))


async def _stop_all(children: tuple[Child, ...]) -> None:
    await asyncio.gather(*(child.stop() for child in children))


async def _until_answered(jet: Jet, data: DataDir, children: tuple[Child, ...]) -> None:
    """Return when commands are answered. Raises Unavailable (server.slow, server.child)."""
    end_s = asyncio.get_running_loop().time() + READY_S
    while True:
        try:
            await call(jet, "ping", {})
            return
        except Unauthenticated:  # answered: this process holds no token where an auth service makes them
            return
        except LucidError as error:
            if asyncio.get_running_loop().time() > end_s:
                raise Unavailable(
                    f"nothing answers commands after {READY_S:g} s: {error.message}",
                    code="server.slow",
                    hint=f"read {data.logs}",
                ) from None
        _check_children(data, children)
        await asyncio.sleep(ASK_S)


async def _until_served(jet: Jet, data: DataDir, children: tuple[Child, ...]) -> None:
    """Return when the child that serves HTTP has its socket. Raises Unavailable (server.child).

    It tells so over our own server. A connection would prove nothing: this process holds the socket.
    """
    heard = set[str]()

    def hear(answer: bytes) -> bool:
        with suppress(ValueError, TypeError, KeyError):
            heard.add(json.loads(answer)["process"])
        return HTTP in heard

    while True:
        with suppress(LucidError):
            await jet.request_all(METRICS, b"", ANSWER_S, hear)
        if HTTP in heard:
            return
        _check_children(data, children)
        await asyncio.sleep(ASK_S)


def _check_children(data: DataDir, children: tuple[Child, ...]) -> None:
    """Raises Unavailable (server.child)."""
    for child in children:
        if child.starts >= STARTS_MOST:
            role = child.name.partition("-")[0]
            raise Unavailable(
                f"the {child.name} ends as soon as it is started",
                code="server.child",
                hint=f"read {data.logs / child.name}.log, or run: lucid serve {role}",
            )
