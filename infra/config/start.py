"""Checks, before a service starts, all that settings name on this machine: folders, files, certificates.

Commands of people do not ask for it: a person may not read the private key of a server.
"""

import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from infra.config.load import near_misses
from infra.disk.data_dir import DataDir
from infra.telemetry.otel_variables import unused_variables
from schemas.config.logs import logger
from schemas.config.settings import VARIABLES, Settings
from schemas.errors import Misuse, Misuses, raise_together

FOLDERS = ("chunks", "manifests", "temp")
"""The folders in which every service writes."""

log = logger("lucid.config")


def check_start(settings: Settings, data: DataDir, folders: Iterable[str] = FOLDERS) -> None:
    """Make the folders, read the certificates. Raises Misuse or Misuses (config.*) for all wrong ones."""
    wrong: list[Misuse] = [*_key_folders(settings), *_token_file(settings)]
    for step in (partial(data.check, folders), partial(certificates, settings)):
        try:
            step()
        except Misuses as several:
            wrong += several.each
        except Misuse as error:
            wrong.append(error)
    raise_together(wrong)


def certificates(settings: Settings) -> ssl.SSLContext | None:
    """Return the context of servers that speak TLS; None: plain HTTP. Raises Misuse (config.tls_*)."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path, name in ((settings.tls_cert, "TLS_CERT_FILE"), (settings.tls_key, "TLS_KEY_FILE")):
        try:
            path.expanduser().open("rb").close()
        except OSError as error:
            raise Misuse(f"{name}: {path}: {error.strerror}", code=f"config.{name[:-5].lower()}") from None
    try:
        context.load_cert_chain(settings.tls_cert.expanduser(), settings.tls_key.expanduser(), _no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Misuse(
            f"TLS_CERT_FILE {settings.tls_cert} and TLS_KEY_FILE {settings.tls_key} are no certificate chain "
            f"with its private key (PEM, no passphrase): {reason}",
            code="config.tls_cert",
        ) from None
    return context


def warn_at_start(settings: Settings, environ: Mapping[str, str] | None = None) -> None:
    """Log names of the environment that are nearly ours, and variables that are set and have no effect."""
    for name, near in near_misses(environ):
        log.warning("variable_unknown", name=name, nearest=near or "none")
    for variable in VARIABLES:
        if variable.without_effect and variable.field in settings.origins:
            log.warning("variable_without_effect", name=variable.name, effect=variable.effect)
    for variable in unused_variables(os.environ if environ is None else environ):
        log.warning("variable_without_effect", name=variable.name, effect=variable.effect)


def _key_folders(settings: Settings) -> Iterator[Misuse]:
    """A place of keys that is no folder. A missing one is not made here: it must be seen to be missing."""
    for name, given in (("KEYS_PATH", settings.keys_path), ("LUCID_KEYS_MIRROR", settings.keys_mirror)):
        path = given and given.expanduser()
        if path and os.path.lexists(path) and not os.path.isdir(path):
            yield Misuse(f"{name}: {path} is not a folder", code="config.path")


def _token_file(settings: Settings) -> Iterator[Misuse]:
    try:
        if settings.token_file is not None:
            settings.token_file.expanduser().open("rb").close()
    except OSError as error:
        yield Misuse(f"LUCID_TOKEN_FILE: {settings.token_file}: {error.strerror}", code="config.token_file")


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")
