"""Runs HTTP roles: the application of streams/api over one installation and one connection."""

import asyncio
import socket
from collections.abc import Collection
from functools import partial
from importlib.metadata import version

from handlers.crypto.blind_index import BlindIndex
from schemas.ports import Jet
from schemas.subjects import METRICS_LEFT
from streams.api.app import ROLES, make_app, metrics_alone
from streams.api.own_answers import Delays, OwnAnswers
from streams.api.parts import ApiParts
from streams.api.server import serve, serve_beside
from streams.api.transfers import Transfers
from streams.control.questions import Questions
from streams.control.where import Where
from streams.event_store.access_log import AccessLog
from streams.event_store.audit_log import AuditLog
from streams.event_store.looks import AccessPolicy, Looks
from streams.event_store.recordings import Recordings
from streams.event_store.request_keys import RequestKeys
from streams.event_store.session_log import SessionLog
from streams.evidence.chunk_services import ChunkServices
from streams.evidence.stored_chunks import ChunkLists
from streams.host.own_recordings import OwnRecordings
from streams.host.upload import Uploads
from streams.keys.keystore import KeyStore
from streams.projections.proven_times import ProvenTimes
from streams.projections.session_list import SessionList
from streams.roles.drivers import (
    Installation,
    ask_health,
    drawn_desktop,
    effective,
    own_host,
    raised_file_limit,
    skip_old_objects,
)
from streams.roles.health import looks
from streams.roles.services import opened_recordings, unless_stopped
from streams.scheduling.clock import now_us

PACKAGE = "lucid-sessions"
METRICS_ROLE = "pipeline"
"""The role that has a second port, METRICS_PORT."""


async def run_http(
    here: Installation, jet: Jet, stop: asyncio.Event, listening: socket.socket, roles: Collection[str]
) -> None:
    """Serve the routes of these roles until `stop` is set."""
    skip_old_objects()
    raised_file_limit()  # each connection is an open file
    recordings = await unless_stopped(stop, opened_recordings(here.logged_keys(jet), jet))
    if recordings is None:
        return
    index = BlindIndex(await asyncio.to_thread(here.index_key.read), here.settings.secret_key)
    parts = api_parts(here, recordings, index, roles, listening.getsockname()[1])
    app = make_app(parts, roles)
    beside = None
    if _has_metrics_port(here, roles):
        beside = asyncio.create_task(serve_beside(metrics_alone(app), _metrics_place(here), stop, here.tls))
    try:
        async with jet.hear(METRICS_LEFT, app.state.metrics.leave):
            await serve(app, listening, stop, here.tls)
    finally:
        await app.state.dependencies.close()
        await app.state.others.close()
        if beside is not None:
            stop.set()
            await beside
        await parts.recordings_here.close()
        await asyncio.to_thread(parts.chunks.pool.close)
        await parts.looks.audit.close()
        await parts.tokens.close()
        await here.views.close()
        here.key_folder.release()


def _has_metrics_port(here: Installation, roles: Collection[str]) -> bool:
    settings = here.settings
    return tuple(roles) == (METRICS_ROLE,) and settings.metrics_enabled and settings.metrics_port > 0


def _metrics_place(here: Installation) -> tuple[str, int]:
    settings = effective(here.settings)
    return settings.metrics_address or settings.bind_address, settings.metrics_port


def api_parts(
    here: Installation, recordings: Recordings, index: BlindIndex, roles: Collection[str], port: int
) -> ApiParts:
    """The parts of an application over this installation. port: where it serves these roles."""
    urls = {role: here.settings.url_of(role.upper(), port if role in roles else None) for role in ROLES}
    keys, jet = KeyStore(here.key_files, here.keyring), recordings.jet
    proven = ProvenTimes(here.data.scrub_place())
    log, listed = SessionLog(jet), SessionList(jet, here.views, keys, index, proven)
    questions = Questions(recordings, log, keys, listed, Delays(jet).of, Where(recordings), proven)
    return ApiParts(
        jet=jet,
        own_answers=OwnAnswers(questions),
        log=log,
        evidence=here.evidence,
        keys=keys,
        chunks=ChunkServices.over(jet, here.evidence, keys, here.settings),
        lists=ChunkLists(jet, here.evidence),
        transfers=Transfers(),
        uploads=Uploads(jet, recordings, here.identity),
        recordings_here=OwnRecordings(jet, here.identity, own_host(), drawn_desktop),
        data=here.data,
        tokens=here.tokens,
        looks=Looks(AuditLog(jet, now_us), AccessLog(jet), AccessPolicy.of(here.settings)),
        request_keys=RequestKeys(jet, index.request_key),
        settings=here.settings,
        meter=here.meter,
        samples=here.meter,
        health=looks(here, jet, roles),
        urls=urls,
        others={role: partial(ask_health, url) for role, url in urls.items() if role not in roles},
        service=here.settings.service_name or service_name(roles),
        version=version(PACKAGE),
    )


def service_name(roles: Collection[str]) -> str:
    """The name that health tells: `session-api`, or `lucid-sessions` for several roles."""
    return f"session-{next(iter(roles))}" if len(roles) == 1 else PACKAGE
