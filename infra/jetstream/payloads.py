"""Holds large payloads that infra.jetstream.wire sends and receives without copying them."""

from schemas.buffers import Bytes, unfilled
from schemas.format.digest import Buffer


class Payload:
    """A payload that nats-py joins to a command by `+`; the join copies nothing."""

    def __init__(self, data: Bytes) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __radd__(self, head: bytes) -> "Command":
        return Command(head, self.data)


class Command:
    """A command in pieces; its length is their sum."""

    def __init__(self, *pieces: Bytes) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __add__(self, end: bytes) -> "Command":
        return Command(*self.pieces, end)


class Landing:
    """A payload that is still arriving, and the memory that receives it."""

    def __init__(self, headers: bytes, size: int, begun: Buffer) -> None:
        """begun: the first bytes of the payload."""
        self.headers = headers
        self.payload = unfilled(size)
        self.rest = memoryview(self.payload)[len(begun) :]
        """The part that is not written yet."""
        self.payload[: len(begun)] = begun

    def put(self, data: bytes) -> bytes:
        """Write the bytes that belong to the payload; return the bytes behind it."""
        mine = min(len(self.rest), len(data))
        self.rest[:mine] = data[:mine]
        self.rest = self.rest[mine:]
        return data[mine:]
