"""Asks both verifiers about a session of a running system."""

import asyncio
import subprocess
import sys
from pathlib import Path

from infra.disk.evidence_copy import history_lines, stored_at, write_copy
from infra.keys.signers import Signers
from schemas.format import dsse
from schemas.format.manifest import Manifest
from schemas.format.trust import TrustFile, TrustKey
from streams.event_store.session_log import SessionLog
from tests.support.pipeline.conducted import World

READER = Path(__file__).parents[2] / "independent" / "reader.py"


async def verified(world: World, session: str, path: Path) -> Manifest:
    """Copy the evidence out, and let the independent reader judge it, with and without keys."""
    shown = await world.ask("show", session)
    uid = bytes.fromhex(shown["uid"])
    lines = history_lines(await SessionLog(world.jet).history(session))
    store = stored_at(world.data.manifests, world.data.chunks, uid, lines)
    await asyncio.to_thread(write_copy, store, path / session)
    signers = Signers(world.data.keys)
    signer, root = signers.at(0), signers.root()
    raw = (world.data.manifests / uid.hex() / "1").read_bytes()
    manifest = Manifest.within(dsse.parse(raw, dsse.MANIFEST))
    span = {"from_us": 0, "until_us": 2**52, "revoked_us": 0}
    keys = tuple(
        TrustKey.model_validate({"key": key, "role": role, "name": name, **span})
        for key, role, name in (
            (signer.public, "signer", signer.name),
            (manifest.host.key, "host", manifest.host.name),
        )
    )
    trust = TrustFile(serial=1, root=root.public, issued_us=1, expires_us=2**52, keys=keys)
    (path / "trust.json").write_bytes(dsse.build(trust.build(), dsse.TRUST, root.sign, root.public))
    command = [sys.executable, str(READER), str(path / session), "--trust", str(path / "trust.json")]
    told = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return manifest
