"""The verb `lucid token`: makes a token with the secret of this installation."""

import time
from typing import Annotated

import typer

from schemas.access import GIVEN_ROLES, SUBJECT_MOST, Role
from schemas.config import values
from schemas.errors import Misuse
from streams.cli import output
from streams.cli.output import JsonFlag
from streams.roles.drivers import Installation

LIFE_LEAST_S, LIFE_MOST_S = 1, 30 * 86_400


def token(
    role: Annotated[str, typer.Option(help=f"{', '.join(GIVEN_ROLES)}; several with commas.")],
    subject: Annotated[str, typer.Option(help="The name in logs and in the audit chain.")] = "developer",
    life: Annotated[str, typer.Option(metavar="TIME", help="How long it counts, at most 30d.")] = "1h",
    as_json: JsonFlag = False,
) -> None:
    """Make a token. In production with JWT_JWKS_URL none is made: the auth service does it."""
    roles = tuple(_role(name.strip()) for name in role.split(","))
    if not 0 < len(subject) <= SUBJECT_MOST or not subject.isprintable():
        raise Misuse(f"--subject is not 1 to {SUBJECT_MOST} printable characters", code="usage")
    try:
        life_s = values.duration(LIFE_LEAST_S, LIFE_MOST_S).parse(life)
    except ValueError:
        raise Misuse(
            f"--life {life[:40]!r} is no time from 1s to 30d, such as 90s, 5m, 1h", code="usage"
        ) from None
    made = Installation.here().issuer.issue(subject, roles, life_s)
    until_us = int((time.time() + life_s) * 1e6)
    shown = {"token": made, "subject": subject, "roles": sorted(roles), "until_us": until_us}
    output.print_result(shown, [made], as_json)


def _role(name: str) -> Role:
    if name not in GIVEN_ROLES:
        raise Misuse(f"--role {name[:40]!r} is none of {', '.join(GIVEN_ROLES)}", code="usage")
    return Role(name)
