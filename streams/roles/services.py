"""Runs the roles `worker` and `conductor`, each composed of its services.

A role is one coroutine that runs until `stop` is set, over one connection and one installation.
"""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from handlers.crypto.blind_index import BlindIndex
from handlers.lifecycle.next_action import SilenceLimits, is_idle
from schemas import subjects
from schemas.config.settings import Settings
from schemas.config.stage_limits import StageLimits
from schemas.format.chunk_header import MAX_PLAIN
from schemas.ports import Jet
from streams.conductor.conductor import Conductor
from streams.conductor.measurements import SystemMeasurements
from streams.conductor.parts import ConductorParts
from streams.conductor.stage_watch import StageWatch
from streams.control.access_commands import AccessCommands
from streams.control.audit_commands import AuditCommands
from streams.control.auditor import Auditor
from streams.control.commands import Control
from streams.control.guard import Guard
from streams.control.key_commands import KeyCommands
from streams.control.nats_service import control_plane
from streams.control.opening import Opening
from streams.control.outcomes import Outcomes
from streams.control.queries import Queries
from streams.control.questions import Questions
from streams.control.running import Running
from streams.control.running_places import RunningPlaces
from streams.control.session_quota import SessionQuota
from streams.control.upload_host import UploadHost
from streams.control.where import Where
from streams.event_store.access_log import AccessLog
from streams.event_store.audit_log import AuditLog
from streams.event_store.event_store import EventStore
from streams.event_store.looks import AccessPolicy
from streams.event_store.open_sessions import OpenSessionsWriter
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.evidence.scrub import Scrub, ScrubParts
from streams.host.upload import Uploads
from streams.keys.folder import LoggedKeyFolder
from streams.keys.keystore import KeyStore
from streams.pipeline.runner import Limits
from streams.pipeline.stages import STAGES
from streams.pipeline.worker import WorkerParts, work
from streams.projections.projector import Documents, Projector
from streams.projections.proven_times import ProvenTimes
from streams.projections.session_list import SessionList
from streams.retention.expired_sessions import ExpiredSessions
from streams.retention.sealed_source import SourceRetention
from streams.roles.drivers import Installation, dialled, prepare_memory, skip_old_objects
from streams.scheduling.clock import now_us
from streams.scheduling.retry import retry

RENEW_S = 6 * 3600.0
Result = TypeVar("Result")

CONDUCTOR_THREADS = 64
"""More than all slots of the conductor's kinds of work: no kind waits for a thread of another."""


async def run_worker(
    here: Installation, jet: Jet, stop: asyncio.Event, group: int = 0, groups: int = 1
) -> None:
    """The six stages over the partitions of one worker group."""
    prepare_memory()
    recordings = await unless_stopped(stop, opened_recordings(here.logged_keys(jet), jet))
    if recordings is None:
        return
    store = EventStore.over(recordings, SessionDirectory(jet))
    parts = WorkerParts(
        store=store,
        keys=KeyStore(here.key_files, here.keyring),
        blobs=here.evidence.chunks,
        overflow=here.overflow,
        end_keys=here.signers.public_keys,
        limits={stage.verb: _limits(here.settings.stages[stage.variables]) for stage in STAGES},
        meter=here.meter,
    )
    following = asyncio.create_task(store.directory.run())
    working = asyncio.create_task(work(parts, stop, group, groups))
    try:
        await asyncio.wait({working, following}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await working
        if following.done():
            following.result()
    finally:
        here.key_folder.release()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


async def run_conductor(here: Installation, jet: Jet, stop: asyncio.Event) -> None:
    """Lifecycle, sealing, retention of sources, and the command service."""
    skip_old_objects()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CONDUCTOR_THREADS, "lucid-conductor"))
    settings, keyring, directory = here.settings, here.keyring, SessionDirectory(jet, sources=True)
    folder = here.logged_keys(jet)
    recordings = await unless_stopped(stop, opened_recordings(folder, jet))
    if recordings is None:
        return
    store = EventStore.over(recordings, directory)
    keys = KeyStore(here.key_files, keyring)
    parts = ConductorParts(
        store=store,
        keys=keys,
        evidence=here.evidence,
        signers=here.signers,
        require_keys=folder.require,
        finish_upload=Uploads(jet, recordings, here.identity).finish,
        limits=silence(settings),
        meter=here.meter,
    )
    retention = SourceRetention(recordings, directory, here.evidence, settings.source_retention_s)
    index = BlindIndex(await asyncio.to_thread(here.index_key.read), settings.secret_key)
    projector = Projector(jet, here.views, Documents(keys, index), directory.ready)
    proven = ProvenTimes(here.data.scrub_place())
    listed = SessionList(jet, here.views, keys, index, proven)
    places = RunningPlaces(directory, jet, settings.max_sessions)
    quota = SessionQuota(directory, places, settings.max_host_sessions)
    conducting = Conductor(parts)
    outcomes = Outcomes(directory, conducting.trouble, conducting.troubles, conducting.wake)
    where = Where(recordings)
    questions = Questions(recordings, store.log, keys, listed, outcomes.delay_of, where, proven)
    opening = Opening(
        store=store,
        questions=questions,
        quota=quota,
        keys=keys,
        host=UploadHost(store, keys, folder.require, here.identity),
        defaults=settings.session(),
        compression_max_s=settings.compression_max_s,
    )
    chain = AuditLog(jet, now_us)
    scrub = Scrub(
        ScrubParts(
            store=store,
            evidence=here.evidence,
            keys=keys,
            signers=here.signers,
            views=here.views,
            audit=chain,
            place=here.data.scrub_place(),
            meter=here.meter,
            bytes_per_s=settings.scrub_mb_per_s * 1e6,
        )
    )
    access = AccessCommands(AccessLog(jet), store.log, AccessPolicy.of(settings), now_us)
    audit = AuditCommands(
        jet, here.signers, here.key_folder.installation, now_us, auditor=Auditor(chain), access=access
    )
    control = Control(
        store,
        Queries(questions, quota, outcomes, scrub, Running(store, outcomes, where)),
        KeyCommands(keys, keyring, here.signers, folder, now_us),
        opening,
        audit,
        Guard(here.tokens, store.hosts),
        now_us,
    )
    dial = partial(dialled, lambda: jet.url, "lucid-control")
    broker = control_plane(control, dial, here.meter, jet.tracer)
    writer = OpenSessionsWriter(jet, directory.open_sessions, directory.ready)
    expired = ExpiredSessions(questions.list_page, store.log)
    stages = StageWatch(
        jet,
        conducting.recorded,
        lambda: {
            one.id: one.created.host if one.created else one.id
            for one in directory.sessions()
            if not is_idle(one)
        },
        settings.stage_stalled_s,
    )
    measurements = SystemMeasurements(here.meter, store, here.views, here.data, conducting, stages)
    services = (
        directory,
        conducting,
        retention,
        writer,
        projector,
        expired,
        audit,
        measurements,
        stages,
        scrub,
    )

    async def renew() -> None:
        await asyncio.to_thread(here.issuer.renew_admin)

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(service.run()) for service in services]
            try:
                # Commands are answered by a process that knows every open session.
                await unless_stopped(stop, retry(directory.ready))
                await unless_stopped(stop, retry(opening.host.settle))
                if not stop.is_set():
                    # The operator's token first: when commands are answered, it is there.
                    await retry(renew)
                    running.append(tasks.create_task(_keep_renewing(renew)))
                    await broker.start()
                    async with jet.serve(subjects.DELAYS, outcomes.delays):
                        await stop.wait()
            finally:
                # Commands first: requests under way still need the directory to move. Then their outcomes.
                await broker.stop()
                await chain.close()
                for task in running:
                    task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        here.key_folder.release()
        await here.views.close()
        await here.tokens.close()


async def _keep_renewing(renew: Callable[[], Awaitable[None]]) -> None:
    """Renew the operator's token while the service runs: each lives a day."""
    while True:
        await asyncio.sleep(RENEW_S)
        await retry(renew)


async def opened_recordings(folder: LoggedKeyFolder, jet: Jet) -> Recordings:
    """The recordings of the installation, once its keys/ are found to belong to its log."""
    await retry(folder.open)
    return await retry(lambda: Recordings.open(jet))


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Await `work`; None: `stop` was set before it was done. Raises its errors."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return None
    finally:
        working.cancel()
        stopped.cancel()


def silence(settings: Settings) -> SilenceLimits:
    """How long a host may be silent."""
    return SilenceLimits(settings.host_silent_max_s, settings.host_return_max_s)


def _limits(stage: StageLimits) -> Limits:
    """A job holds a chunk twice, as input and output: so many of the largest fit into the stage's memory."""
    fit = stage.memory_bytes // (2 * MAX_PLAIN)
    workers = max(1, min(stage.workers or multiprocessing.cpu_count(), fit))
    return Limits(workers, max(stage.slots, workers), stage.timeout_s, stage.retries, stage.memory_bytes)
