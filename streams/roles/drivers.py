"""Chooses the driver behind each port: no other module in streams/ imports infra.

1. It composes and decides nothing: its callers decide the use of a driver.
2. A process that asks for keys is excluded from core dumps before the first key is in memory.
3. A plain function of this machine or process needs no port, and is handed on by its name.
4. Drivers with large libraries (tokens, MongoDB) are imported when they are made: most verbs need none.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from infra import jetstream
from infra.access.credential import own_credential
from infra.access.secret import TokenSecret
from infra.access.wanted_claims import Wanted
from infra.blobs.disk import DiskBlobs
from infra.capture.drawn_desktop import drawn, record_desktop
from infra.capture.ffmpeg import decode, encodes_h264
from infra.capture.file_source import FileSource
from infra.capture.x11_notice import fits_notice
from infra.config.load import config_files, data_dir, effective, load_settings, near_misses
from infra.config.start import FOLDERS, certificates, check_start, warn_at_start
from infra.disk.durable import absolute, new_file
from infra.disk.evidence_copy import COPY_HINT, KEYS, copy_at, mode_at, read_bounded, unreadable, write_copy
from infra.disk.overflow import DiskOverflow, raised_file_limit
from infra.jetstream import Where
from infra.keys.folder import KeyFolder
from infra.keys.index_key import IndexKeyFile
from infra.keys.master import Keyring
from infra.keys.mirrored_folder import MirroredKeyFolder
from infra.keys.mirrored_session_keys import MirroredKeyFiles
from infra.keys.place import DiskKeyPlace
from infra.keys.session_keys import DiskKeyFiles
from infra.keys.signers import Signers
from infra.nats_server.server import NatsServer
from infra.nats_server.server import version as server_version
from infra.nats_server.store_lock import has_streams
from infra.processes.children import Child, die_with, own_pid
from infra.processes.jaeger import Jaeger
from infra.processes.machine import held_port, own_host
from infra.processes.memory import prepare_memory, refuse_dumps, skip_old_objects
from infra.processes.swap import plain_swap
from infra.rdp_host.xrdp import rdp_host
from infra.read_models.sqlite import SqliteViews
from infra.services.health import ask_health
from infra.telemetry.begin_traces import traced, traced_apart
from infra.telemetry.logs import configure_logs
from infra.telemetry.metrics import Meter
from schemas import ports
from schemas.config.settings import Settings
from schemas.ports.processes import Picture
from schemas.subjects import METRICS
from streams.evidence.evidence_store import EvidenceStore
from streams.keys.folder import LoggedKeyFolder

__all__ = ["COPY_HINT", "KEYS", "FileSource", "Installation", "Jaeger", "Where", "absolute", "ask_health"]
__all__ += ["blobs", "config_files", "configure_logs", "connected", "copy_at", "decode", "dialled"]
__all__ += ["die_with", "drawn", "drawn_desktop", "effective", "encodes_h264", "held_port", "mode_at"]
__all__ += ["fits_notice", "near_misses", "new_file", "own_host", "own_pid", "plain_swap", "prepare_memory"]
__all__ += ["raised_file_limit", "rdp_host", "read_bounded", "server", "server_version", "skip_old_objects"]
__all__ += ["supervised", "traced", "traced_apart", "unreadable", "write_copy"]


class Installation:
    """The drivers of one data directory, under its settings. Making one touches nothing."""

    def __init__(self, settings: Settings, meter: Meter | None = None) -> None:
        """meter: that of this process, if another installation here has made it."""
        self.settings = settings
        self._given_meter = meter
        self.process = "lucid"
        """The name under which this process shows its measurements."""
        self.expects: tuple[str, ...] = ()
        """Names of processes that should run beside it."""
        self._data = data_dir(settings)
        self._mirror = settings.keys_mirror.expanduser() if settings.keys_mirror else None
        self.data: ports.DataDir = self._data

    @classmethod
    def here(cls, environ: Mapping[str, str] | None = None, role: str = "") -> "Installation":
        """The one that the environment names. role: of `lucid serve ROLE`. Raises Misuse (config.*)."""
        return cls(load_settings(environ, role))

    def check_start(self, *, owner: bool = False) -> None:
        """Check folders and certificates before a service starts, and log doubtful variables.

        owner: the process runs the NATS server, too. Raises Misuse or Misuses (config.*).
        """
        warn_at_start(self.settings)
        check_start(self.settings, self._data, (*FOLDERS, "nats") if owner else FOLDERS)

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """The certificates of our servers; None: they speak plain HTTP. Raises Misuse (config.tls_*)."""
        return certificates(self.settings)

    @cached_property
    def meter(self) -> Meter:
        return self._given_meter or Meter(self.process, self.expects)

    @cached_property
    def _secret(self) -> TokenSecret:
        settings = self.settings
        return TokenSecret(
            settings.jwt_secret, self._data.path, may_make=settings.environment != "production"
        )

    @property
    def _wanted(self) -> Wanted:
        settings = self.settings
        return Wanted(settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_s)

    @cached_property
    def tokens(self) -> ports.Tokens:
        """Raises Misuse (config.jwt_secret): nothing could verify a token."""
        from infra.access.jwks import KeySet
        from infra.access.tokens import JwtTokens

        keys = KeySet(self.settings.jwt_jwks) if self.settings.jwt_jwks else None
        return JwtTokens(self._secret, keys, self._wanted)

    @cached_property
    def issuer(self) -> ports.Issuer:
        from infra.access.issuer import JwtIssuer

        by_auth_service = self.settings.environment == "production" and bool(self.settings.jwt_jwks)
        return JwtIssuer(self._secret, self._data.path, self._wanted, allowed=not by_auth_service)

    @cached_property
    def credential(self) -> ports.Credential:
        """The token that the commands of this process send."""
        return own_credential(self.settings, self._data.path)

    @cached_property
    def keyring(self) -> ports.Keyring:
        refuse_dumps()
        settings = self.settings
        return Keyring(self._data.keys, settings.encryption_key, settings.key_derivation, self._mirror)

    @cached_property
    def key_folder(self) -> ports.KeyFolder:
        keys, mirror = self._data.keys, self._mirror
        return MirroredKeyFolder(keys, mirror) if mirror else KeyFolder(keys)

    @cached_property
    def key_files(self) -> ports.KeyFiles:
        refuse_dumps()
        files, mirror = DiskKeyFiles(self._data.keys / "sessions"), self._mirror
        return MirroredKeyFiles(files, DiskKeyFiles(mirror / "sessions")) if mirror else files

    def logged_keys(self, jet: ports.Jet) -> LoggedKeyFolder:
        """The `keys/` folder, checked against this log."""
        return LoggedKeyFolder(jet, self.key_folder, self.keyring, self.signers, self.key_files)

    def key_place(self, path: Path | None = None) -> ports.KeyPlace:
        """One folder with keys, without its mirror; None: the one in use."""
        refuse_dumps()
        return DiskKeyPlace(path or self._data.where("keys"))

    def mirror_place(self) -> ports.KeyPlace | None:
        """The mirror of the keys; None: there is none."""
        return self.key_place(self._mirror) if self._mirror else None

    @cached_property
    def signers(self) -> ports.Signers:
        refuse_dumps()
        return Signers(self._data.keys, self._mirror)

    @cached_property
    def index_key(self) -> ports.IndexKey:
        """For a process that has opened the `keys/` folder."""
        refuse_dumps()
        return IndexKeyFile(self._data.keys, self._mirror)

    @cached_property
    def evidence(self) -> EvidenceStore:
        chunks, manifests, quarantine = self._data.chunks, self._data.manifests, self._data.quarantine
        return EvidenceStore(
            DiskBlobs(chunks, quarantine), DiskBlobs(manifests, quarantine), DiskBlobs(quarantine)
        )

    @cached_property
    def overflow(self) -> ports.Overflow:
        settings = self.settings
        return DiskOverflow(self._data.where("temp"), settings.spill_bytes, settings.worker_processes)

    @cached_property
    def views(self) -> ports.Views:
        url = self.settings.mongodb_url
        if url:
            from infra.read_models.mongo import MongoViews

            return MongoViews(url)
        return SqliteViews(self._data.path / "views.sqlite")

    def measured(self, jet: ports.Jet) -> AbstractAsyncContextManager[None]:
        """Answer with the measurements of this process until the block ends."""
        self.meter.rows(
            "lucid_spans_dropped",
            "Ended spans that were not exported: too many waited, or the server did not take them.",
            ("reason",),
            lambda: {(reason,): count for reason, count in jet.tracer.dropped.items()},
            rises=True,
        )
        return jet.serve(METRICS, self.meter.sample)

    def sweep(self) -> None:
        """Remove files that a crash left incomplete. For the owner, before it starts anything."""
        for folder in (self._data.chunks, self._data.manifests, self._data.quarantine):
            DiskBlobs(folder).sweep()

    def holds_log(self) -> bool:
        """Whether a NATS server of our own has kept streams in this data directory."""
        return has_streams(self._data.where("nats"))

    def identity(self, host: str) -> ports.HostIdentity:
        """One host's key and counter, locked. Raises Unavailable (host.locked)."""
        from infra.keys.host_identity import HostIdentity

        return HostIdentity(self._data.folder("hosts"), host)

    def server(self) -> ports.Server:
        return server(self._data.nats, self.settings.nats_memory_mib)

    def unsynced_server(self) -> ports.Server:
        """A server that does not sync: a power failure takes its data. For data that can be made again."""
        return NatsServer(self._data.nats, memory_mib=self.settings.nats_memory_mib, synced=False)


async def dialled(where: Where, name: str) -> Any:
    """A connected client of the driver itself, for a library that is built on it."""
    client = jetstream.Client(where)
    await client.dial(name=name, error_cb=_ignore)
    return client


async def _ignore(error: Exception) -> None:
    """The client tries again; the connection beside it reports the error."""


@asynccontextmanager
async def connected(
    where: str | Where,
    name: str,
    timeout_s: float = jetstream.CONNECT_TIMEOUT_S,
    credential: ports.Credential = ports.no_token,
) -> AsyncIterator[ports.Jet]:
    """A connection, closed afterwards. where: URLs, or a function that gives them before every try.

    credential: gives the token of its commands; `no_token` gives none.
    Raises Unavailable, Denied (both nats.*), Misuse (config.nats_url, nats.max_payload).
    """
    jet = await jetstream.connect(where, name=name, timeout_s=timeout_s, credential=credential)
    try:
        yield jet
    finally:
        await jet.close()


def server(folder: Path, memory_mib: int) -> ports.Server:
    """A broker of our own over one folder, not started yet."""
    return NatsServer(folder, memory_mib=memory_mib)


def supervised(
    name: str,
    command: tuple[str, ...],
    environment: Mapping[str, str],
    log: Path | None,
    inherits: tuple[int, ...] = (),
) -> ports.Child:
    """A process of ours, not started yet. log: the file for its output; None: it shares ours.

    inherits: descriptors that stay open in it.
    """
    return Child(name, command, environment, log, inherits=inherits)


def blobs(folder: Path) -> ports.Blobs:
    """The blobs of one folder that belongs to no installation."""
    return DiskBlobs(folder)


@asynccontextmanager
async def drawn_desktop(seconds: float, picture: Picture) -> AsyncIterator[ports.Source]:
    """A desktop that is drawn and encoded for so long, in real time. Raises Unavailable (capture.*)."""
    async with await record_desktop(seconds, picture) as capture:
        yield capture
