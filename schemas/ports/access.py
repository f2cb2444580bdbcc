"""The ports of identity: verify a token, make one, and keep the token of a person at hand."""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from schemas.access import Caller, Role

NO_MEMBERS: Mapping[str, Any] = MappingProxyType({})


class Credential(Protocol):
    """Gives the token to send with the next request."""

    def __call__(self, name: str = "", body: Mapping[str, Any] = NO_MEMBERS, /) -> str:
        """Return the token; empty: there is none. Raises Unreadable (access.file).

        name, body: of the command. The token of a person serves for any; that of a host names this one.
        """


def no_token(name: str = "", body: Mapping[str, Any] = NO_MEMBERS, /) -> str:
    """The credential of a caller without one."""
    return ""


class Tokens(Protocol):
    """Verifies tokens. One for each process; any number of tasks may call at once.

    Verified tokens are remembered until they expire, in bounded memory. No error repeats a token.
    """

    async def caller(self, token: str, address: str = "") -> Caller:
        """Return the caller of a person's token.

        Raises Unauthenticated (access.missing, access.token, access.expired, access.early, access.claims),
        Unavailable (access.keys): the auth service has not told its keys yet.
        """

    def host_of(self, token: str) -> str:
        """Return the host that a token claims to come from, unverified; empty: it is a person's token."""

    def host(self, token: str, key: bytes, request: bytes, address: str = "") -> Caller:
        """Return the host that signed its token with this evidence key, for the request of this digest.

        Raises Unauthenticated (access.token, access.expired, access.early, access.claims, access.host_key,
        access.request).
        """

    async def check(self) -> None:
        """Return if tokens can be verified. Raises Unavailable (access.keys), as `caller`."""

    async def close(self) -> None:
        """Close the connection to the auth service. A second call does nothing."""


class Issuer(Protocol):
    """Makes tokens with the secret of this installation. Calls block."""

    @property
    def admin_file(self) -> Path | None:
        """The file of `renew_admin`; None: no token is made here, an auth service makes them."""

    def issue(self, subject: str, roles: Collection[Role], life_s: float) -> str:
        """Return a token. Raises Denied (access.issuer), Unavailable (access.secret)."""

    def renew_admin(self) -> Path | None:
        """Write the token of this installation's own operator to its file, 0600, atomically; return the file.

        None: this process may not make tokens. A second call replaces the token; the old one ends by itself.
        Raises Unavailable (access.secret).
        """
