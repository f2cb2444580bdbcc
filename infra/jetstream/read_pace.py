"""Owns how closely a reader may follow the writer of a stream without filling the server's memory.

1. The server keeps each block of messages that was read while it was still being written for 10 s after it
   is full (nats-server 2.15; no setting): at 60 MB/s 600 MB. A block that is first read when it is full is
   given back as soon as its last message is read.
2. So it may be read close behind the writer for BURST_BYTES, and for BYTES_PER_S on: 370 MB in 10 s. Who
   writes faster is followed with a distance, that nobody notices who is so far from real time anyway.
3. Pure: time and sizes come in.
"""

BURST_BYTES = 48 << 20
BYTES_PER_S = 32e6
DISTANCE_BYTES = 16 << 20
"""Two blocks of a large stream."""


class Pace:
    """What one reader has read close behind the writer, as a bucket that leaks."""

    def __init__(self, burst_bytes: int = BURST_BYTES, bytes_per_s: float = BYTES_PER_S) -> None:
        self._burst_bytes, self._bytes_per_s = burst_bytes, bytes_per_s
        self._level = self._at_s = self._mean = 0.0
        self._behind = 0.0

    def took(self, size: int, pending: int, now_s: float) -> None:
        """A message came. pending: how many stood behind it in the stream when the server sent it."""
        self._mean += (size - self._mean) / (16 if self._mean else 1)
        self._behind = pending * self._mean
        if self._behind < DISTANCE_BYTES:
            self._level = self._leaked(now_s) + size
            self._at_s = now_s

    def allows(self, outstanding_bytes: int, now_s: float) -> bool:
        """Whether more may be asked for now. outstanding_bytes: asked for, and still to come."""
        distant = self._behind - outstanding_bytes >= DISTANCE_BYTES
        return distant or self._leaked(now_s) < self._burst_bytes

    def _leaked(self, now_s: float) -> float:
        return max(0.0, self._level - (now_s - self._at_s) * self._bytes_per_s)
