"""Makes tokens with the secret of this installation: for its own operator, and for development.

    admin.token     the operator's token, 0600; replaced as a whole

1. A reader of the data folder has its keys already: the operator's token gives SUPER_ADMIN.
2. In production with an auth service (JWT_JWKS_URL) nothing is made: identities are the auth service's.
"""

import secrets
import time
from collections.abc import Collection
from pathlib import Path

import jwt

from infra.access.credential import ADMIN_FILE
from infra.access.secret import TokenSecret
from infra.access.tokens import SECRET_ALGORITHM
from infra.access.wanted_claims import Wanted
from infra.disk.data_dir import make_writable_folder
from infra.disk.durable import write_private
from schemas.access import Role
from schemas.errors import Denied, Unavailable

OPERATOR = "operator"
"""Subject of the operator's token."""
ADMIN_LIFE_S = 24 * 3600.0


class JwtIssuer:
    """The port Issuer."""

    def __init__(self, secret: TokenSecret, folder: Path, wanted: Wanted, *, allowed: bool) -> None:
        """allowed: whether identities are made here at all."""
        self._secret, self._folder, self._wanted = secret, folder, wanted
        self._allowed = allowed and secret.exists

    @property
    def admin_file(self) -> Path | None:
        return self._folder / ADMIN_FILE if self._allowed else None

    def issue(self, subject: str, roles: Collection[Role], life_s: float) -> str:
        if not self._allowed:
            raise Denied(
                "this installation makes no tokens: in production they come from the auth service",
                code="access.issuer",
                hint="get one there, or set JWT_SECRET_KEY instead of JWT_JWKS_URL",
            )
        now_s = int(time.time())
        claims = {
            "sub": subject,
            "roles": sorted(roles),
            "iat": now_s,
            "exp": now_s + int(life_s),
            "jti": secrets.token_hex(8),
        }
        if self._wanted.issuer:
            claims["iss"] = self._wanted.issuer
        if self._wanted.audience:
            claims["aud"] = self._wanted.audience
        return jwt.encode(claims, self._secret.value, algorithm=SECRET_ALGORITHM)

    def renew_admin(self) -> Path | None:
        path = self.admin_file
        if path is None:
            return None
        token = self.issue(OPERATOR, (Role.SUPER_ADMIN,), ADMIN_LIFE_S)
        make_writable_folder(self._folder)
        try:
            write_private(path, token.encode() + b"\n")
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror}", code="access.secret") from None
        return path
