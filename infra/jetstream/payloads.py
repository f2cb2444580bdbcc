"""Holds a large payload that infra.jetstream.wire receives into its final memory."""

from schemas.buffers import unfilled
from schemas.format.digest import Buffer


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
