"""Large payloads that are neither copied on their way out nor on their way in (`infra.jetstream.wire`)."""

from schemas.buffers import Bytes, unfilled


class Payload:
    """Stands for a payload where the driver makes a command of it by `+`: it is not copied into that."""

    def __init__(self, data: Bytes) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __radd__(self, head: bytes) -> "Command":
        return Command(head, self.data)


class Command:
    """A command in pieces, as long as all of them."""

    def __init__(self, *pieces: Bytes) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __add__(self, end: bytes) -> "Command":
        return Command(*self.pieces, end)


class Landing:
    """A payload whose end is still to come, and where it comes to."""

    def __init__(self, headers: bytes, size: int) -> None:
        self.headers = headers
        self.payload = unfilled(size)
        self.rest = memoryview(self.payload)
        """What is not written yet."""

    def put(self, data: bytes) -> bytes:
        """Write what belongs to the payload; return what follows it."""
        mine = min(len(self.rest), len(data))
        self.rest[:mine] = data[:mine]
        self.rest = self.rest[mine:]
        return data[mine:]
