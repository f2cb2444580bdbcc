"""What a client does before it says anything: real servers with TLS, and servers that are none."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from infra.jetstream import Jet, StreamSpec, client, connect
from infra.nats_server.server import NatsServer, binary
from schemas import subjects
from schemas.errors import Denied, LucidError, Misuse, NoSpace, Unavailable, outcome
from streams.cli.verbs import doctor_link
from streams.event_store import topology
from streams.roles.drivers import dialled
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.servers.certificates import certificate
from tests.support.servers.ports import held_ports

SECRET = "kilimanjaro:/?#[]@!%é, ok"
USER = "me@home/ü"
WHO = f"{quote(USER, safe='')}:{quote(SECRET, safe='')}"
INFO = {"server_id": "x", "version": "2.15.1", "max_payload": 1 << 20, "headers": True, "auth_required": True}
LOG = StreamSpec("LOG", ("log.>",), 1 << 20)
JETSTREAM = 'jetstream {{ store_dir: "{folder}/js", max_file_store: 1GB }}'
PASSWORD = f'authorization {{ user: "{USER}", password: "{SECRET}" }}'

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def nats(folder: Path, *lines: str, jetstream: str = JETSTREAM) -> AsyncIterator[int]:
    """A real server with these lines in its configuration; its port."""
    with held_ports(1) as (port,):
        config = folder / "test.conf"
        config.write_text("\n".join([f"listen: 127.0.0.1:{port}", *lines, jetstream.format(folder=folder)]))
        process = await asyncio.create_subprocess_exec(
            binary(), "-c", str(config), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            yield port
        finally:
            process.kill()
            await process.wait()


async def server_pid(port: int) -> int:
    """The process that listens there."""
    return next(
        found.pid
        for found in psutil.net_connections("tcp")
        if found.laddr and found.laddr.port == port and found.status == psutil.CONN_LISTEN and found.pid
    )


@contextlib.asynccontextmanager
async def liar(talk: Talk) -> AsyncIterator[tuple[int, bytearray]]:
    """A server that is none; its port, and all that it was told."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def listen() -> None:
            while data := await reader.read(1 << 16):
                heard.extend(data)

        listening = asyncio.create_task(listen())
        try:
            await talk(reader, writer)
        finally:
            listening.cancel()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a server needs for TLS under a certificate that this process trusts."""
    certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    return f"cert_file: '{tmp_path}/cert.pem', key_file: '{tmp_path}/key.pem'"


async def reached(url: str) -> Jet:
    return await connect(url, name="test", timeout_s=PATIENCE_S)


def says(*parts: bytes, then_s: float = 60) -> Talk:
    """Send these parts, with a moment between, and wait."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.2)
        await asyncio.sleep(then_s)

    return talk


def info(**more: object) -> bytes:
    return b"INFO " + json.dumps({**INFO, **more}).encode() + b"\r\n"


@pytest.mark.parametrize("first", ["", ", handshake_first: true", ", handshake_first: auto"])
async def test_tls_reaches_a_server_that_offers_it_however_it_begins(
    tmp_path: Path, tls: str, first: str
) -> None:
    """Breaks: a cluster whose servers want TLS before the first word cannot be used."""
    async with nats(tmp_path, f"tls {{ {tls} {first} }}", PASSWORD) as port:
        jet = await reached(f"tls://{WHO}@127.0.0.1:{port}")
        await jet.declare(LOG)
        assert (await jet.publish("log.a", os.urandom(300_000))).seq == 1
        await jet.close()


@pytest.mark.parametrize("where", ["ours", "the command service's"])
async def test_no_credentials_leave_where_tls_is_wanted_and_none_is_offered(where: str) -> None:
    """Breaks: tls:// sends the password in plain text to whoever answers there."""
    async with liar(says(info())) as (port, heard):
        url = f"tls://{WHO}@127.0.0.1:{port}"
        if where == "ours":
            with pytest.raises(Denied) as error:
                await reached(url)
            assert error.value.code == "nats.no_tls"
            assert outcome(error.value).exit_code == 6
            assert SECRET not in str(error.value)
        else:
            dialling = asyncio.create_task(dialled(lambda: url, "test"))
            await asyncio.sleep(1)
            dialling.cancel()
            await asyncio.gather(dialling, return_exceptions=True)
        assert heard == b""


async def test_a_real_server_without_tls_is_refused_and_one_with_optional_tls_is_not(
    tmp_path: Path, tls: str
) -> None:
    """Breaks: the same, of servers that exist."""
    async with nats(tmp_path, PASSWORD) as port:
        with pytest.raises(Denied) as error:
            await reached(f"tls://{WHO}@127.0.0.1:{port}")
        assert error.value.code == "nats.no_tls"
    async with nats(tmp_path, f"tls {{ {tls} }}", "allow_non_tls: true", PASSWORD) as port:
        jet = await reached(f"tls://{WHO}@127.0.0.1:{port}")
        transport = jet._conn.nc.wire._protocol.transport
        assert transport is not None
        assert transport.get_extra_info("ssl_object") is not None
        await jet.close()


async def test_a_certificate_that_nobody_trusts_ends_it_before_the_password(
    tmp_path: Path, tls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: whoever stands between makes a certificate, and reads the password."""
    async with nats(tmp_path, f"tls {{ {tls} }}", PASSWORD) as port:
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(Denied) as error:
            await reached(f"tls://{WHO}@127.0.0.1:{port}")
        assert error.value.code == "nats.certificate"
        with pytest.raises(Denied) as error:
            await reached(f"tls://{WHO}@localhost:{port}")
        assert error.value.code == "nats.certificate"
        with pytest.raises(Denied) as error:  # and nats:// to one that wants TLS looks as closely
            await reached(f"nats://{WHO}@127.0.0.1:{port}")
        assert error.value.code == "nats.certificate"


async def test_words_before_the_secure_link_do_not_get_into_it(tls: str) -> None:
    """Breaks: whoever stands between puts answers into a link that is secure by its name."""
    async with liar(says(info(tls_required=True) + b"PONG\r\n")) as (port, heard):
        with pytest.raises(Unavailable) as error:
            await connect(f"tls://{WHO}@127.0.0.1:{port}", name="test", timeout_s=2)
        assert error.value.code == "nats.hung_up"
        assert b"CONNECT" not in heard


@pytest.mark.parametrize(
    ("talk", "codes"),
    [
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), {"nats.foreign"}),
        (says(b"SSH-2.0-OpenSSH_9.6\r\n"), {"nats.foreign"}),
        (says(b"INFO nonsense\r\n"), {"nats.foreign"}),
        (says(b"INFO []\r\n"), {"nats.foreign"}),
        (says(b'INFO {"max_payload": "much"}\r\n'), {"nats.foreign"}),
        (says(info(connect_urls=5)), {"nats.foreign"}),
        (says(info(), b"220 smtp\r\n"), {"nats.foreign"}),
        (says(then_s=60), {"nats.silent", "nats.unreachable"}),
        (says(info()), {"nats.silent", "nats.unreachable"}),
        (says(then_s=0), {"nats.hung_up"}),
        (says(b"IN", then_s=0), {"nats.hung_up", "nats.foreign"}),
        (says(info(), then_s=0), {"nats.hung_up"}),
        (says(b"x" * (3 << 20)), {"nats.hung_up"}),
        (says(info(), b"-ERR 'Maximum Connections Exceeded'\r\n", then_s=0), {"nats.refused"}),
        (says(info(), f"-ERR 'you said {SECRET}'\r\n".encode(), then_s=0), {"nats.refused"}),
        (says(info(), b"-ERR 'Authorization Violation'\r\n", then_s=0), {"nats.denied"}),
        (says(info(), b"-ERR 'Secure Connection - TLS Required'\r\n", then_s=0), {"nats.tls_wanted"}),
    ],
    ids=[
        "http",
        "ssh",
        "INFO without JSON",
        "INFO that is a list",
        "a limit that is none",
        "addresses that are none",
        "smtp after INFO",
        "silence",
        "silence after CONNECT",
        "hangs up at once",
        "hangs up in INFO",
        "hangs up after CONNECT",
        "no line end",
        "too many connections",
        "repeats the password",
        "wrong password",
        "wants TLS",
    ],
)
async def test_what_is_no_server_of_ours_is_told_as_what_it_is(talk: Talk, codes: set[str]) -> None:
    """Breaks: a wrong port, or a server that hangs up, is called a bug in lucid."""
    async with liar(talk) as (port, _):
        with pytest.raises(LucidError) as error:
            await connect(f"nats://{WHO}@127.0.0.1:{port}", name="test", timeout_s=5)
        assert error.value.code in codes, error.value
        assert outcome(error.value).exit_code in (6, 7)
        for told in (str(error.value), error.value.hint):
            assert SECRET not in told
            assert quote(SECRET, safe="") not in told
            assert SECRET.partition(":")[0] not in told, "its other characters may be shown as others"
        assert "127.0.0.1" in str(error.value)


async def test_credentials_of_any_characters_reach_the_server_as_they_were_meant(tmp_path: Path) -> None:
    """Breaks: a password with a slash or an @ in it is refused, however it is written."""
    async with nats(tmp_path, PASSWORD) as port:
        jet = await reached(f"nats://{WHO}@127.0.0.1:{port}")
        service = await dialled(lambda: jet.url, "service")
        assert service.is_connected
        await service.drain()
        await jet.close()
    async with nats(tmp_path, f'authorization {{ token: "{SECRET}" }}') as port:
        jet = await reached(f"nats://{quote(SECRET, safe='')}@127.0.0.1:{port}")
        await jet.close()


async def test_of_several_servers_each_gets_its_own_credentials(tmp_path: Path) -> None:
    """Breaks: a password is told to a server that it is not for; or one wrong server ends it all."""
    async with nats(tmp_path, PASSWORD) as port, liar(says(b"HTTP/1.1 400\r\n")) as (other, heard):
        for _ in range(5):  # they are tried in any order
            jet = await reached(f"nats://a:b@127.0.0.1:{other}, nats://{WHO}@127.0.0.1:{port}")
            await jet.declare(LOG)
            await jet.close()
        assert SECRET.encode() not in heard


async def test_a_server_that_moved_is_followed_and_its_old_address_is_told_nothing(
    tmp_path: Path, server: NatsServer
) -> None:
    """Breaks: every recorder is stranded when `lucid up` gets another port; or tells it its password."""
    place: list[str | None] = [server.url]
    jet = await connect(lambda: place[0], name="test", timeout_s=PATIENCE_S)
    await jet.declare(LOG)
    place[0] = None
    port = server.port
    await server.stop()
    await until(lambda: jet._conn.breaks)
    heard = bytearray()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(b"somebody came")
        writer.write(info())
        heard.extend(await reader.read(1 << 16))

    stranger = await asyncio.start_server(take, "127.0.0.1", port)
    moved = NatsServer(server.data, max_file=4 << 30)
    try:
        await moved.start()
        assert moved.port != port
        await asyncio.sleep(0.5)
        place[0] = moved.url
        await jet.wait_up()
        assert (await jet.publish("log.a", b"x")).seq == 1
        assert jet.url == moved.url
        assert not heard
    finally:
        stranger.close()
        await jet.close()
        await moved.stop()


async def test_a_server_without_jetstream_or_with_small_messages_is_told_at_once(tmp_path: Path) -> None:
    """Breaks: a recording begins, and its first fragment shows that this server cannot take it."""
    async with nats(tmp_path, jetstream="") as port:
        with pytest.raises(Unavailable) as absent:
            await reached(f"nats://127.0.0.1:{port}")
        assert absent.value.code == "nats.no_jetstream"
    accounts = "accounts { A { users: [{user: a, password: b}], jetstream: disabled } }"
    async with nats(tmp_path, accounts) as port:
        with pytest.raises(Unavailable) as absent:
            await reached(f"nats://a:b@127.0.0.1:{port}")
        assert absent.value.code == "nats.no_jetstream"
    async with nats(tmp_path, "max_payload: 16000") as port:
        with pytest.raises(Misuse) as small:
            await reached(f"nats://127.0.0.1:{port}")
        assert small.value.code == "nats.max_payload"
        assert "16000" in small.value.message
    async with nats(tmp_path, "max_payload: 300000") as port:
        jet = await reached(f"nats://127.0.0.1:{port}")
        assert jet.max_payload == 300_000
        await jet.close()


async def test_limits_of_an_account_are_known_and_refuse_with_their_name(tmp_path: Path) -> None:
    """Breaks: the third of eight streams cannot be made, and nobody says which limit it was."""
    account = (
        "accounts { A { users: [{user: a, password: b}], jetstream { max_file: 64MB, max_streams: 1 } }}"
    )
    async with nats(tmp_path, account) as port:
        jet = await reached(f"nats://a:b@127.0.0.1:{port}")
        await jet.declare(LOG)
        said = await jet.account()
        assert (said.streams, said.max_streams, said.max_bytes) == (1, 1, 64 << 20)
        with pytest.raises(NoSpace) as most:
            await jet.declare(StreamSpec("TWO", ("two",), 1 << 20))
        assert most.value.code == "account.streams"
        await jet.close()


async def test_what_a_user_may_not_do_is_told_at_once(tmp_path: Path) -> None:
    """Breaks: a missing right looks like a slow server: ten seconds of silence at every try."""
    users = """authorization { users: [
        {user: host, password: p, permissions: {publish: ["lucid.rec.>"], subscribe: ["_INBOX.>"]}},
        {user: deaf, password: p, permissions: {publish: [">"], subscribe: ["other"]}}] }"""
    async with nats(tmp_path, users) as port:
        jet = await reached(f"nats://host:p@127.0.0.1:{port}")  # rights for its own subjects are enough
        for attempt in (jet.declare(LOG), jet.publish("log.A", b"x"), jet.request("Other", b"")):
            with pytest.raises(Denied) as error:
                await attempt
            assert error.value.code == "nats.forbidden"
        await jet.close()
        with pytest.raises(Denied) as error:
            await reached(f"nats://deaf:p@127.0.0.1:{port}")
        assert error.value.code == "nats.forbidden"


async def test_a_user_that_is_taken_away_for_a_while_comes_back(tmp_path: Path) -> None:
    """Breaks: a server whose users are written anew ends every recording's connection for good, unnoticed."""
    accounts = 'authorization {{ users: [{{user: "{user}", password: p}}] }}'
    async with nats(tmp_path, accounts.format(user="a")) as port:
        jet = await reached(f"nats://a:p@127.0.0.1:{port}")
        service = await dialled(lambda: jet.url, "service")
        await jet.declare(LOG)
        config = tmp_path / "test.conf"
        text = config.read_text()
        pid = await server_pid(port)
        config.write_text(text.replace('"a"', '"b"'))
        os.kill(pid, signal.SIGHUP)
        await until(lambda: jet._conn.breaks and not service.is_connected)
        with pytest.raises(Unavailable):
            await jet.publish("log.a", b"x")
        config.write_text(text)
        os.kill(pid, signal.SIGHUP)
        await jet.wait_up()
        assert (await jet.publish("log.a", b"x")).seq == 1
        await until(lambda: service.is_connected)
        await service.close()
        await jet.close()


async def test_a_connection_that_begins_badly_while_it_comes_back_is_tried_again(
    server: NatsServer, jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a server that hangs up once while it restarts leaves a client that hears nothing for ever."""
    monkeypatch.setattr(client, "HANDSHAKE_S", 0.5)
    await jet.declare(LOG)
    os.kill(server.pid, signal.SIGSTOP)  # takes connections, says nothing
    try:
        await jet._conn.nc.force_reconnect()
        await asyncio.sleep(1.5)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await jet.wait_up()
    assert (await jet.publish("log.a", b"x")).seq == 1


async def test_services_refuse_a_server_whose_messages_are_too_small_for_their_events(tmp_path: Path) -> None:
    """Breaks: a recording of many small fragments ends when its first chunk closes."""
    async with nats(tmp_path, "max_payload: 500000") as port:
        jet = await reached(f"nats://127.0.0.1:{port}")
        with pytest.raises(Misuse) as error:
            topology.check_payload(jet)
        assert error.value.code == "nats.max_payload"
        said, cure = await doctor_link.look(jet, 0)
        assert (f"nats://127.0.0.1:{port}" in said, "max_payload" in cure) == (True, True)
        await jet.close()


async def test_the_doctor_tells_which_recording_stream_is_full(jet: Jet) -> None:
    """Breaks: the sessions of one shard wait, and everything looks well."""
    assert await doctor_link.recordings(jet) is None
    await jet.declare(topology.streams(100 << 20, shards=4)[0])
    said, cure = await doctor_link.recordings(jet) or ("", "")
    assert ("3 not made yet" in said, "lucid up" in cure) == (True, True)
    await topology.declare(jet, 100 << 20)
    session = next(name for name in map(str, range(100)) if subjects.partition(name) % 4 == 2)
    await jet.publish(subjects.recording("h", session), bytes(1_000_000))
    said, cure = await doctor_link.recordings(jet) or ("", "")
    assert said == "1.0 MB in 4 streams; the fullest: 1.0 MB of 21.0 MB in RECORDINGS-2"
    assert not cure
    for _ in range(19):
        await jet.publish(subjects.recording("h", session), bytes(1_000_000))
    said, cure = await doctor_link.recordings(jet) or ("", "")
    assert ("takes no more data" in said, bool(cure)) == (True, True)


async def test_the_doctor_tells_that_another_number_of_shards_refuses_the_start(jet: Jet) -> None:
    """Breaks: it says that all is well, and the next start refuses SHARDS."""
    await topology.declare(jet, 100 << 20, shards=4)
    for shards, wrong in ((0, False), (4, False), (8, True)):
        _, cure = await doctor_link.look(jet, 0, shards)
        assert ("set it to 4" in cure, bool(cure)) == (wrong, wrong)


async def test_the_doctor_tells_which_limit_of_the_account_is_too_small(tmp_path: Path) -> None:
    """Breaks: it says that all is well, and `serve` then stops half-way."""
    account = "accounts { A { users: [{user: a, password: b}], jetstream {max_file: 64MB, max_streams: %d}}}"
    for most, storage_bytes, cure in ((3, 0, "max_streams"), (9, 1 << 30, "NATS_MAX_STORAGE_MB"), (9, 0, "")):
        async with nats(tmp_path, account % most) as port:
            jet = await reached(f"nats://a:b@127.0.0.1:{port}")
            said, found = await doctor_link.look(jet, storage_bytes)
            assert (cure in found, bool(found), "of 67.1 MB" in said) == (True, bool(cure), True), (
                said,
                found,
            )
            await jet.close()
