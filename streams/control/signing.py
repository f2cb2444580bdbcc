"""Owns the commands about who signs: to list signers, make another, and revoke one.

Each may be repeated after any failure; a rotation that was repeated has been done twice, and harms nobody.
"""

import asyncio
import logging
import time
from typing import Any

from schemas.events.commands import RevokeSigner
from schemas.ports import DatedSigner, Signers

Body = dict[str, Any]

log = logging.getLogger("lucid.signing")


async def list_signers(signers: Signers, body: Body) -> Body:
    """Every signer that there has been, oldest first."""
    return {"signers": [_told(one) for one in await asyncio.to_thread(signers.held)]}


async def rotate_signer(signers: Signers, body: Body) -> Body:
    """A new signer: what is dated from now on bears its signature."""
    made = await asyncio.to_thread(signers.rotate, time.time_ns() // 1000)
    log.info("signer_rotated name=%s fingerprint=%s", made.name, made.fingerprint.hex())
    return _told(made)


async def revoke_signer(signers: Signers, body: Body) -> Body:
    """Nothing that this signer ever signed counts any more. since_us: from when it could be misused."""
    asked = RevokeSigner.model_validate(body)
    revoked = await asyncio.to_thread(signers.revoke, asked.name, asked.since_us)
    log.warning("signer_revoked name=%s since_us=%d", revoked.name, revoked.revoked_us)
    return _told(revoked)


def _told(signer: DatedSigner) -> Body:
    return {
        "name": signer.name,
        "fingerprint": signer.fingerprint.hex(),
        "from_us": signer.from_us,
        "until_us": signer.until_us,
        "revoked_us": signer.revoked_us,
    }
