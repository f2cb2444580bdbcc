"""Translates the refusals of PyJWT into our errors. None repeats the token, nor any part of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import jwt

from schemas.access import TOKEN_MOST_BYTES
from schemas.errors import Unauthenticated

NEW_ONE = "get a new one from the auth service, or on the machine of the installation: lucid token"


def no_token() -> Unauthenticated:
    """There is no token."""
    return Unauthenticated(
        "this needs a token, and there is none",
        code="access.missing",
        hint="set LUCID_TOKEN or LUCID_TOKEN_FILE; make one in development: lucid token --role ADMIN",
    )


def bad_token(reason: str) -> Unauthenticated:
    """The token does not count. reason: of our own words."""
    return Unauthenticated(f"the token does not count: {reason}", code="access.token", hint=NEW_ONE)


def bad_claim(reason: str) -> Unauthenticated:
    """The token is signed, but a claim that is wanted is missing or wrong."""
    return Unauthenticated(f"the token does not count here: {reason}", code="access.claims", hint=NEW_ONE)


def too_late(whose: str = "the token") -> Unauthenticated:
    return Unauthenticated(f"{whose} has expired", code="access.expired", hint=NEW_ONE)


def too_early(whose: str = "the token") -> Unauthenticated:
    return Unauthenticated(
        f"{whose} is of the future", code="access.early", hint="set the clocks of both machines (NTP)"
    )


def checked_size(token: str) -> None:
    """Raises Unauthenticated (access.missing, access.token)."""
    if not token:
        raise no_token()
    if len(token) > TOKEN_MOST_BYTES:
        raise bad_token(f"it is longer than {TOKEN_MOST_BYTES} bytes")
    if not token.isascii():
        raise bad_token("it is no JWT")


@contextmanager
def translated(whose: str = "the token") -> Iterator[None]:
    """Raises Unauthenticated (access.token, access.expired, access.early, access.claims)."""
    try:
        yield
    except jwt.ExpiredSignatureError:
        raise too_late(whose) from None
    except jwt.ImmatureSignatureError:
        raise too_early(whose) from None
    except jwt.MissingRequiredClaimError as error:
        raise bad_claim(f"it has no claim `{error.claim}`") from None
    except jwt.InvalidIssuerError:
        raise bad_claim("its issuer (`iss`) is another one") from None
    except jwt.InvalidAudienceError:
        raise bad_claim("it is for another audience (`aud`)") from None
    except jwt.InvalidSignatureError:
        raise bad_token("no key that counts signed it") from None
    except jwt.InvalidAlgorithmError:
        raise bad_token("its algorithm is not allowed") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        raise bad_token("it is no JWT") from None
