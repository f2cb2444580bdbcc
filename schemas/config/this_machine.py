"""Says whether the name or address of a host means the machine on which it is read. Looks nothing up."""

import ipaddress
import socket

NAMES = frozenset(
    ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "")
)


def is_this_machine(host: str) -> bool:
    """Whether the host is localhost under any of its names, a loopback or an unspecified address, or a path.

    127.1, 2130706433 and 0x7f.1 count: resolvers take them for 127.0.0.1.
    """
    name = host.strip("[]").partition("%")[0].rstrip(".").lower()
    if name in NAMES or name.endswith(".localhost") or host.startswith("/"):
        return True
    address = _address(name)
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return address is not None and (address.is_loopback or address.is_unspecified)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        if ":" in name:
            return ipaddress.IPv6Address(name)
        return ipaddress.IPv4Address(socket.inet_aton(name)) if name[:1].isdigit() else None
    except (OSError, ValueError):
        return None
