"""Ports of this machine."""

from infra.processes.machine import held_port


def free_port() -> int:
    """A port that nobody has now. It may be taken before it is used."""
    with held_port() as held:
        port: int = held.getsockname()[1]
        return port
