"""Owns what the roles are made of: which adapter stands behind which part.

Each role is one coroutine that runs until its `stop` is set, over one connection and one data directory.
"""

import asyncio
import os
from contextlib import suppress

from infra.blobs_disk import DiskBlobs
from infra.datadir import DataDir
from infra.jetstream import Jet
from infra.keyring import Keyring
from schemas.settings import Settings, StageLimits
from streams.directory import Directory
from streams.keystore import KeyStore
from streams.runner import Limits
from streams.stages import STAGES
from streams.worker import Parts, work


async def run_worker(
    settings: Settings, jet: Jet, data: DataDir, stop: asyncio.Event, group: int = 0, groups: int = 1
) -> None:
    """The six stages over the partitions of one worker group."""
    keyring = Keyring(data.keys, settings.encryption_key, settings.key_derivation)
    directory, keys = Directory(jet), KeyStore(jet, keyring)
    parts = Parts(
        jet=jet,
        directory=directory,
        keys=keys,
        blobs=DiskBlobs(data.chunks, data.quarantine),
        signers=lambda: [keyring.signer().public],
        limits={stage.verb: _limits(settings.stages[stage.variables]) for stage in STAGES},
    )
    following = [asyncio.create_task(service.run()) for service in (directory, keys)]
    working = asyncio.create_task(work(parts, stop, group, groups))
    try:
        await asyncio.wait({working, *following}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await working
        for task in following:
            if task.done():
                task.result()
    finally:
        for task in following:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _limits(stage: StageLimits) -> Limits:
    workers = stage.workers or os.cpu_count() or 2
    return Limits(workers, max(stage.slots, workers), stage.timeout_s, stage.retries, stage.memory_bytes)
