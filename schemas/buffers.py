"""Owns buffers whose every byte is written right after they are made: nothing is copied into them twice."""

import ctypes

from schemas.format.digest import Buffer

ALIGNED_BYTES = 4096
"""What a disk takes as it is begins at a multiple of this."""
Bytes = bytes | bytearray
"""What has its bytes to itself. Once it is handed on, nobody writes to it."""

_make = ctypes.pythonapi.PyByteArray_FromStringAndSize
_make.argtypes, _make.restype = (ctypes.c_char_p, ctypes.c_ssize_t), ctypes.py_object


def unfilled(count: int) -> bytearray:
    """`count` bytes that hold anything: who asks for them writes all of them, or gives none of them away.

    `bytearray(count)` writes zeros first, under the interpreter's lock: 0.2 CPU seconds a GB of chunks.
    """
    buffer: bytearray = _make(None, count)
    return buffer


def aligned(count: int) -> bytearray:
    """The same in aligned memory, from twice ALIGNED_BYTES on.

    Taking bytes off the front of a bytearray moves none, as long as half of it stays.
    """
    buffer = unfilled(count + ALIGNED_BYTES)
    del buffer[: -address(buffer) % ALIGNED_BYTES]
    del buffer[count:]
    return buffer


def is_aligned(data: Buffer) -> bool:
    """Whether a disk would take it as it is. What cannot be written to is not asked."""
    return not memoryview(data).readonly and address(data) % ALIGNED_BYTES == 0


def address(data: Buffer) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data)) if len(data) else 0
