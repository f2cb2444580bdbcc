"""What infra.jetstream.wire promises: the driver's own results, with fewer copies, over TCP and TLS."""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import BadHeaderError, BadSubjectError, StaleConnectionError
from nats.protocol.parser import Parser

from infra.jetstream import Jet, StreamSpec, connect, wire_parser
from infra.jetstream.direct_callbacks import direct
from infra.jetstream.publish_command import SMALL_BYTES, publish_command
from infra.jetstream.wire import SCRATCH_BYTES, WireProtocol, WireTransport
from infra.jetstream.wire_parser import WireParser
from infra.nats_server.server import NatsServer, binary
from schemas.errors import Unavailable
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.servers.certificates import certificate
from tests.support.servers.ports import held_ports

Seen = tuple[int, bytes, bytes, bytes, bytes | None]


class Listener:
    """Stands where the driver's client stands, and notes what a parser tells it."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.pings = 0

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.seen.append((sid, bytes(subject), bytes(reply), data, headers))

    async def _process_ping(self) -> None:
        self.pings += 1


def message(n: int, size: int, headers: int) -> bytes:
    payload = bytes([n]) * size
    if headers:
        block = b"NATS/1.0\r\nA: " + b"x" * headers + b"\r\n\r\n"
        line = b"HMSG s.%d %d r.%d %d %d\r\n" % (n, n, n, len(block), len(block) + size)
        return line + block + payload + b"\r\n"
    return b"MSG s.%d %d %d\r\n" % (n, n, size) + payload + b"\r\n"


STREAM = b"".join(
    [
        message(1, 0, 0),
        message(2, 50, 0),
        b"PING\r\n",
        message(3, 50, 20),
        message(4, 0, 5),
        message(5, 1, 0),
        message(6, 200, 1),
        b"PING\r\n",
    ]
)


@pytest.fixture(params=[1, wire_parser.LARGE_BYTES], ids=["every payload is large", "none is"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_parser, "LARGE_BYTES", request.param)


def ours(listener: Listener) -> WireParser:
    return WireParser(listener, WireTransport())


async def parsed(kind: Callable[[Listener], Parser], pieces: list[bytes]) -> Listener:
    listener = Listener()
    parser = kind(listener)
    for piece in pieces:
        await parser.parse(piece)
    return listener


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("step", [1, 2, 3, 7, 16, 64, 101, 10_000])
async def test_messages_are_the_same_wherever_the_network_cuts_them(step: int) -> None:
    """Breaks: a fragment arrives with bytes missing, doubled or swapped when packets fall badly."""
    whole = await parsed(Parser, [STREAM])
    assert len(whole.seen) == 6
    cut = await parsed(ours, [STREAM[at : at + step] for at in range(0, len(STREAM), step)])
    assert cut.seen == whole.seen
    assert cut.pings == whole.pings == 2


@pytest.mark.usefixtures("large")
async def test_any_two_cuts_give_the_same_messages() -> None:
    """Breaks: one cut inside headers or inside the line end corrupts everything after it."""
    stream = message(1, 9, 3) + message(2, 4, 0) + b"PING\r\n"
    whole = await parsed(Parser, [stream])
    for one in range(len(stream)):
        for two in range(one, len(stream)):
            cut = await parsed(ours, [stream[:one], stream[one:two], stream[two:]])
            assert cut.seen == whole.seen, (one, two)
            assert cut.pings == 1


async def test_what_lands_is_what_was_sent_however_it_comes() -> None:
    """Breaks: a fragment is received into the place of another, or loses what came with the one before."""
    listener, transport = Listener(), WireTransport()
    parser, protocol = WireParser(listener, transport), transport._protocol
    dice = random.Random(7)
    sizes = [0, 70_000, 10, 300_000, 64 << 10, 65_000, 200_000, 3, 100_000] * 4
    stream = b"".join(message(n, size, n % 3) for n, size in enumerate(sizes)) + b"PING\r\n"
    whole = await parsed(Parser, [stream])
    landed = at = 0
    while at < len(stream):
        for _ in range(dice.randint(1, 3)):  # the loop reads more before the parser has its turn
            view = protocol.get_buffer(-1)
            count = min(dice.choice([1, 7, 1000, 50_000, 1 << 20]), len(view), len(stream) - at)
            view[:count] = stream[at : at + count]
            landed += count if protocol._lands else 0
            protocol.buffer_updated(count)
            at += count
        while (protocol.chunks or protocol._landed) and (at == len(stream) or dice.random() < 0.7):
            await parser.parse(await transport.read(0))
    assert listener.seen == whole.seen
    assert listener.pings == 1
    assert landed > len(stream) / 10


class Fed(Listener):
    """A driver's client whose odd subscriptions have direct callbacks."""

    msg_class = Msg

    def __init__(self) -> None:
        super().__init__()
        self.stats: Counter[str] = Counter()
        self.direct = 0
        self._subs = {n: Subscription(self, n, cb=direct(self.take) if n % 2 else None) for n in range(40)}

    def take(self, message: Msg) -> None:
        self.direct += 1
        block = b"NATS/1.0\r\nA: " + message.headers["A"].encode() + b"\r\n\r\n" if message.headers else None
        names = message.subject.encode(), message.reply.encode()
        self.seen.append((message._sid or 0, *names, bytes(message.data), block))


@pytest.mark.parametrize("seed", range(6))
async def test_messages_for_a_direct_callback_keep_their_place_among_all_others(seed: int) -> None:
    """Breaks: an answer overtakes a fragment, or a piece of one message is taken for another."""
    dice = random.Random(seed)
    sizes = dice.sample([0, 3, 10, 5000, 64 << 10, 65_000, 70_000, 100_000, 200_000, 300_000] * 4, 40)
    stream = b"".join(message(n, size, n % 3) + b"PING\r\n" * (n % 7 == 0) for n, size in enumerate(sizes))
    whole = await parsed(Parser, [stream])
    client, transport = Fed(), WireTransport()
    parser, protocol, at = WireParser(client, transport), transport._protocol, 0

    async def read_on() -> None:
        while True:
            await parser.parse(await transport.read(0))

    reading = asyncio.create_task(read_on())
    while at < len(stream):
        view = protocol.get_buffer(-1)
        count = min(dice.choice([1, 2, 7, 1000, 50_000, 1 << 20]), len(view), len(stream) - at)
        view[:count] = stream[at : at + count]
        protocol.buffer_updated(count)
        at += count
        if dice.random() < 0.5:
            await asyncio.sleep(0)
    await until(lambda: len(client.seen) == len(whole.seen))
    reading.cancel()
    assert client.seen == whole.seen
    assert client.pings == whole.pings
    assert client.direct > 0


async def test_a_new_connection_begins_with_nothing_of_the_old(jet: Jet) -> None:
    """Breaks: half a message from before a crash is glued to the first one after it."""
    listener = Listener()
    parser = ours(listener)
    await parser.parse(message(1, 100, 0)[:50])
    parser.reset()
    await parser.parse(message(2, 100, 0))
    assert [seen[0] for seen in listener.seen] == [2]


async def test_a_break_in_the_middle_of_a_payload_is_over_when_the_server_is_back(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the flusher sees it just before the reader takes what came, and nothing is heard again."""
    updated, broken = WireProtocol.buffer_updated, asyncio.Event()
    breaking: list[asyncio.Future[None]] = []

    def break_first(protocol: WireProtocol, count: int) -> None:
        if b"HMSG" in bytes(protocol._scratch[:count]) and not broken.is_set():
            broken.set()
            breaking.append(asyncio.ensure_future(jet._conn.nc._process_op_err(StaleConnectionError())))
        updated(protocol, count)

    monkeypatch.setattr(WireProtocol, "buffer_updated", break_first)  # a transport asks for it once
    jet = await connect(server.url, name="breaks", timeout_s=PATIENCE_S)
    await jet.declare(StreamSpec("ECHO", ("echo",), 1 << 30))
    bodies = [os.urandom(900_000) for _ in range(4)]
    for body in bodies:
        await jet.publish("echo", body)
    with contextlib.suppress(Unavailable):
        await jet.get_many("ECHO", [1, 2, 3, 4])
    assert broken.is_set()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*breaking)
        await jet._conn.wait_up()
        found = await jet.get_many("ECHO", [1, 2, 3, 4])
    assert [found[seq].data for seq in sorted(found)] == bodies
    await jet.close()


async def test_a_reader_that_does_not_read_stops_the_sender() -> None:
    """Breaks: a worker that is busy takes the whole stream into memory."""
    protocol = WireProtocol()
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(bytes(64 << 20))
    await until(lambda: protocol._paused)
    assert 0 < sum(map(len, protocol.chunks)) <= SCRATCH_BYTES
    left = 64 << 20
    while left:
        left -= len(await asyncio.wait_for(protocol.take(), PATIENCE_S))
    writer.close()
    server.close()


@pytest.mark.parametrize("size", [0, 1, 32 << 10, (32 << 10) + 1, 256 << 10, 960 << 10, 1_000_000])
async def test_messages_of_every_size_go_out_and_come_back(jet: Jet, size: int) -> None:
    """Breaks: fragments of one size are cut or mixed on their way to the server."""
    await jet.declare(StreamSpec("ECHO", ("echo",), 1 << 30))
    bodies = [os.urandom(size) for _ in range(12)]
    acks = await asyncio.gather(*(jet.publish("echo", body) for body in bodies))
    found = await jet.get_many("ECHO", [ack.seq for ack in acks])
    assert [found[ack.seq].data for ack in acks] == bodies


@pytest.fixture
async def tls_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A server that talks TLS only, under a certificate that this process trusts."""
    certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with held_ports(1) as (port,):
        (tmp_path / "tls.conf").write_text(
            f'listen: "127.0.0.1:{port}"\n'
            f"tls {{ cert_file: '{tmp_path}/cert.pem', key_file: '{tmp_path}/key.pem' }}\n"
            f"jetstream {{ store_dir: '{tmp_path}/js', max_file_store: 1GB }}\n"
        )
        process = await asyncio.create_subprocess_exec(
            binary(), "-c", str(tmp_path / "tls.conf"), stderr=asyncio.subprocess.DEVNULL
        )
        yield port
        process.kill()
        await process.wait()


async def test_large_messages_pass_through_tls(tls_port: int) -> None:
    """Breaks: a cluster that is reached by TLS cannot be used."""
    jet = await connect(f"tls://127.0.0.1:{tls_port}", name="tls", timeout_s=PATIENCE_S)
    await jet.declare(StreamSpec("TLS", ("tls",), 256 << 20))
    bodies = [os.urandom(900_000) for _ in range(20)]
    await asyncio.gather(*(jet.publish("tls", body) for body in bodies))
    found = [message.data async for message in jet.read_all("TLS", "tls")]
    assert sorted(found) == sorted(bodies)
    await jet.close()


async def test_closing_does_not_wait_for_a_server_that_takes_nothing(server: NatsServer, jet: Jet) -> None:
    """Breaks: a worker cannot be stopped while the server hangs."""
    import signal

    await jet.declare(StreamSpec("ECHO", ("echo",), 1 << 30))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        sent = [asyncio.create_task(jet.publish("echo", bytes(900_000))) for _ in range(60)]
        await asyncio.sleep(0.3)
        await asyncio.wait_for(jet.close(), PATIENCE_S)
        outcomes = await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), PATIENCE_S)
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_what_is_sent_right_before_a_close_arrives(server: NatsServer, jet: Jet) -> None:
    """Breaks: a worker that stops hands no work back, and the next one waits for each message to time out."""
    await jet.declare(StreamSpec("ECHO", ("echo",), 1 << 30))
    other = await connect(server.url, name="other", timeout_s=PATIENCE_S)
    for size in (10, 900_000, 10):
        await other._conn.send("echo", bytes(size))
    await other.close()
    async with asyncio.timeout(PATIENCE_S):
        while (await jet.info("ECHO")).messages < 3:  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.005)


async def test_nothing_overtakes_a_subscription(jet: Jet) -> None:
    """Breaks: a reader asks before it listens, and its answer is lost."""
    for number in range(100):
        found = asyncio.Event()
        await jet._conn.subscribe(f"news.{number}", lambda _, found=found: found.set())  # type: ignore[misc]
        await jet._conn.send(f"news.{number}", bytes(number % 2 * 2 * SMALL_BYTES))
        await asyncio.wait_for(found.wait(), PATIENCE_S)


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, SMALL_BYTES + 1, 100_000])
@pytest.mark.parametrize("headers", [None, {"A": " b\t", "ce-id": "\u00fc"}, {" N ": "1\r\nX: 2\n"}])
@pytest.mark.parametrize("reply", ["", "_INBOX.a.1"])
async def test_a_command_around_a_payload_is_the_drivers_own(
    size: int, headers: dict[str, str] | None, reply: str
) -> None:
    """Breaks: a message of a host is framed wrongly, or text of a stranger in it becomes a command."""
    data, driver, sent = os.urandom(size), Client(), bytearray()

    async def note(command: bytes) -> None:
        sent.extend(command)

    driver._send_command = note
    await driver._send_publish("s.t", reply, data, size, headers)
    pieces = publish_command("s.t", data, reply, headers)
    assert b"".join(pieces) == sent
    assert (len(pieces) > 1 and any(piece is data for piece in pieces)) == (size > SMALL_BYTES)


def test_a_command_with_a_name_that_would_end_its_line_is_refused() -> None:
    """Breaks: text of a stranger in a subject or header becomes a command."""
    for bad in ("", "a b", "a\r\nPUB b 0\r\n", "a\t"):
        with pytest.raises(BadSubjectError):
            publish_command(bad, b"")
        with pytest.raises(BadHeaderError):
            publish_command("s", b"", headers={bad + "\n:": "x"})
    with pytest.raises(BadSubjectError):
        publish_command("s", b"", "a b")
