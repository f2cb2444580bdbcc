"""Lists the keys that this installation trusts: its own signers, each for its time, and registered hosts.

1. The trust file for others is signed by the root key. Nothing else needs that key: it may be kept offline.
2. A host's key, and the newest signer, have no end of their own: the trust file ends them with itself.
"""

from collections.abc import Iterable
from contextlib import suppress

from handlers.crypto.trust import HOST, LIFE_US, SIGNER, Trust, build_trust
from schemas import subjects
from schemas.errors import Denied, NotFound, Rejected
from schemas.events.host import HostRegistered, read_host_event
from schemas.format.trust import TrustKey
from schemas.ports import Reader, Signer, Signers
from streams.keys.folder import keys_noted
from streams.scheduling import clock


def trust_file(keys: Iterable[TrustKey], root: Signer, serial: int) -> bytes:
    """The installation's trust file over its `trusted_keys`."""
    now_us = clock.now_us()
    return build_trust(keys, serial=serial, issued_us=now_us, root=root.public, sign=root.sign)


async def own_trust(jet: Reader, signers: Signers) -> Trust:
    """The trust of the installation itself, signed by no root. Raises as `trusted_keys`."""
    return Trust(b"", 0, tuple(await trusted_keys(jet, signers)))


async def trusted_keys(jet: Reader, signers: Signers) -> list[TrustKey]:
    """Signers and hosts, as a trust file lists them.

    Raises NotFound (keys.no_signer), Denied (keys.foreign).
    """
    held = signers.held()
    if not held:
        raise NotFound(
            "this data directory holds no signer", code="keys.no_signer", hint="lucid up, or set LUCID_DATA"
        )
    noted, _ = await keys_noted(jet)
    if noted is not None and not set(noted.signers) <= {one.fingerprint for one in held}:
        raise Denied(
            "this data directory does not hold every signer that the log knows",
            code="keys.foreign",
            hint="set LUCID_DATA to the one that belongs to this log, or put its keys/ back: lucid doctor",
        )
    end_us = clock.now_us() + LIFE_US
    listed = [
        TrustKey(
            key=signer.public,
            role=SIGNER,
            name=signer.name,
            from_us=signer.from_us,
            until_us=signer.until_us or end_us,
            revoked_us=signer.revoked_us,
        )
        for signer in held
    ]
    return listed + [
        TrustKey(key=key, role=HOST, name=host, from_us=0, until_us=end_us, revoked_us=0)
        for host, key in sorted((await registered_hosts(jet)).items())
    ]


async def registered_hosts(jet: Reader) -> dict[str, bytes]:
    """Evidence keys by host name."""
    found: dict[str, bytes] = {}
    async for message in jet.read_all(subjects.LIFECYCLE, subjects.ALL_HOSTS):
        with suppress(Rejected):  # one malformed line must not remove every host from the trust file
            event = read_host_event(message.data)
            if isinstance(event, HostRegistered):
                found[event.host] = event.key
    return found
