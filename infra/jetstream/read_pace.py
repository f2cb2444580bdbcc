"""Limits how closely a reader follows a fast writer, so that the server's memory does not fill.

1. nats-server 2.15 keeps a block of messages for 10 s after it is full, if it was read while it was written
   (no setting). At 60 MB/s that is 600 MB. A block that is first read when full is freed with its last
   message.
2. So a reader may stay close behind the writer for BURST_BYTES, then at BYTES_PER_S: 370 MB in 10 s. Behind a
   faster writer it keeps DISTANCE_BYTES of distance; at that speed no one watches in real time.
3. Pure: time and sizes come in.
"""

BURST_BYTES = 48 << 20
BYTES_PER_S = 32e6
DISTANCE_BYTES = 16 << 20
"""Two blocks of a large stream."""


class Pace:
    """Counts the bytes read close behind the writer, as a leaky bucket."""

    def __init__(self, burst_bytes: int = BURST_BYTES, bytes_per_s: float = BYTES_PER_S) -> None:
        self._burst_bytes, self._bytes_per_s = burst_bytes, bytes_per_s
        self._level = self._at_s = self._mean = 0.0
        self._behind = 0.0

    def took(self, size: int, pending: int, now_s: float) -> None:
        """Note a message. pending: how many followed it in the stream when the server sent it."""
        self._mean += (size - self._mean) / (16 if self._mean else 1)
        self._behind = pending * self._mean
        if self._behind < DISTANCE_BYTES:
            self._level = self._leaked(now_s) + size
            self._at_s = now_s

    def allows(self, outstanding_bytes: int, now_s: float) -> bool:
        """Return whether the reader may ask for more. outstanding_bytes: asked for, and still to come."""
        distant = self._behind - outstanding_bytes >= DISTANCE_BYTES
        return distant or self._leaked(now_s) < self._burst_bytes

    def _leaked(self, now_s: float) -> float:
        return max(0.0, self._level - (now_s - self._at_s) * self._bytes_per_s)
