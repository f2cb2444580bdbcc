"""Carries out the commands about keys: `rotate`, `signers`, `rotate_signer`, `revoke_signer`.

1. Before a key is made or listed, `keys/` must belong to the log; afterwards the log names every key in it.
2. Each command may be repeated after any failure. A rotation that was repeated has been done twice, which
   harms nobody.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from schemas.config.logs import logger
from schemas.events.commands import RevokeSigner
from schemas.ports import DatedSigner, Keyring, Signers
from streams.control.client import error_fields
from streams.keys.folder import LoggedKeyFolder
from streams.keys.keystore import KeyStore
from streams.scheduling.clock import Clock

Body = dict[str, Any]

log = logger("lucid.control")


@dataclass(frozen=True, slots=True)
class KeyCommands:
    """One for each process that answers commands."""

    keys: KeyStore
    keyring: Keyring
    signers: Signers
    folder: LoggedKeyFolder
    clock_us: Clock

    async def rotate(self, body: Body) -> Body:
        """A new master key version; every session's key is wrapped under it. after: go on with it there."""
        await self.folder.check()  # a folder that lost a version must not get another one of its number
        after = bytes.fromhex(body.get("after", ""))
        if not after:
            await asyncio.to_thread(self.keyring.add_version)
            await self.folder.note()
        done = await self.keys.rotate(after)
        first = done.refused[0] if done.refused else None
        return {
            **done._asdict(),
            "refused": len(done.refused),
            "first_refused": error_fields(first) if first else None,
            "after": done.after.hex(),
        }

    async def list_signers(self, body: Body) -> Body:
        """Every signer that there has been, oldest first."""
        async with self._checked():
            return {"signers": [_shown(one) for one in await asyncio.to_thread(self.signers.held)]}

    async def rotate_signer(self, body: Body) -> Body:
        """A new signer: it signs all evidence that is dated from now on."""
        async with self._checked():
            made = await asyncio.to_thread(self.signers.rotate, self.clock_us())
            log.info("signer_rotated", name=made.name, fingerprint=made.fingerprint.hex())
            return _shown(made)

    async def revoke_signer(self, body: Body) -> Body:
        """Nothing that this signer ever signed counts any more. since_us: from when it could be misused."""
        async with self._checked():
            asked = RevokeSigner.model_validate(body)
            revoked = await asyncio.to_thread(self.signers.revoke, asked.name, asked.since_us)
            log.warning("signer_revoked", name=revoked.name, since_us=revoked.revoked_us, who=asked.who)
            return _shown(revoked)

    @asynccontextmanager
    async def _checked(self) -> AsyncIterator[None]:
        await self.folder.check()
        yield
        await self.folder.note()


def _shown(signer: DatedSigner) -> Body:
    return {
        "name": signer.name,
        "fingerprint": signer.fingerprint.hex(),
        "from_us": signer.from_us,
        "until_us": signer.until_us,
        "revoked_us": signer.revoked_us,
    }
