"""Keeps this process, and the keys in its memory, from core dumps and from other processes of its user."""

import ctypes

PR_SET_DUMPABLE = 4


def refuse_dumps() -> bool:
    """Whether the kernel agreed. Without prctl (not Linux) nothing happens. Source: prctl(2)."""
    try:
        return bool(ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False
