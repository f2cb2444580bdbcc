"""A host with valid credentials that heeds nothing and sends until it is killed; for tests.

Runs as a process of its own, so that it is as fast while the system under test works as while it rests.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.format.fragment import FragmentSealer
from infra.jetstream import Jet, connect
from schemas import subjects
from schemas.errors import Unavailable
from schemas.format.fragment import PartSettings
from streams.event_store.recordings import Recordings
from streams.host.publisher import Grant

UNDER_WAY = 64
FRAGMENT_BYTES = 200
OVERHEAD_BYTES = 176
"""Header, tag and signature of a data fragment."""
PART = PartSettings(encoder="none", reason="start")
START_US = 1_700_000_000_000_000
BEGUN_S = 120.0
"""Only a hang takes longer, on a busy machine too."""


@asynccontextmanager
async def flood(jet: Jet, grant: Grant, what: str = "signed", begun: int = 1000) -> AsyncIterator[None]:
    """Flood a session that was started, from `begun` messages on. what: signed, garbage."""
    subject = subjects.recording(grant.host, grant.session)
    told = {
        "url": jet.url,
        "subject": subject,
        "what": what,
        "uid": grant.uid.hex(),
        "genesis": grant.genesis.hex(),
        "intake": grant.intake_public.hex(),
        "key": grant.sign_key.private_bytes_raw().hex(),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(told).encode())
    process.stdin.close()
    try:
        async with asyncio.timeout(BEGUN_S):
            recordings = await Recordings.open(jet)
            while (await recordings.counts(grant.session)).get(subject, 0) < begun:
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield
        assert process.returncode is None, "it has flooded all the time"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def main() -> None:
    told = json.loads(sys.stdin.read())
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(told["key"]))
    uid, intake, genesis = (bytes.fromhex(told[name]) for name in ("uid", "intake", "genesis"))
    sealer = FragmentSealer(uid, 0, key, intake, genesis)
    jet = await connect(told["url"], name="flood")
    await jet.publish(told["subject"], sealer.part(PART, START_US))

    def signed() -> bytes:
        now_us = START_US + sealer.state.next_seq
        return sealer.data(bytes(FRAGMENT_BYTES - OVERHEAD_BYTES), now_us)

    def garbage() -> bytes:
        return os.urandom(FRAGMENT_BYTES)

    async def send_on(make: Callable[[], bytes]) -> None:
        while True:
            fragment, sent = make(), False
            while not sent:
                with suppress(Unavailable):
                    await jet.publish(told["subject"], fragment)
                    sent = True

    make = {"signed": signed, "garbage": garbage}[told["what"]]
    await asyncio.gather(*(send_on(make) for _ in range(UNDER_WAY)))


if __name__ == "__main__":
    asyncio.run(main())
