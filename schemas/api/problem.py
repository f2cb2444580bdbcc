"""The problem document of every error that the API answers (RFC 9457)."""

import re

from pydantic import BaseModel, Field

from schemas.errors import LucidError, outcome

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "X-Request-Id"
"""The header of requests and answers."""
REQUEST_ID_FORM = r"[A-Za-z0-9][A-Za-z0-9._~+/=:-]{0,99}"
"""The form in which a caller may give its own."""
_REQUEST_ID = re.compile(REQUEST_ID_FORM)
TYPE_PREFIX = "urn:lucid:error:"
TITLES = {
    400: "The request is wrong",
    401: "No valid token",
    403: "Not allowed",
    404: "Not there",
    405: "Not possible here",
    406: "No such form",
    408: "Too slow",
    409: "Not now",
    412: "Out of date",
    413: "Too large",
    415: "Unknown form",
    416: "No such range",
    422: "Not acceptable",
    428: "A precondition is needed",
    429: "Too many requests",
    500: "A bug",
    503: "Not available now",
    507: "No space",
}


class FieldProblem(BaseModel):
    """One member of a request that is wrong. place: as `body.tags.3`."""

    place: str
    message: str


class Problem(BaseModel):
    """An error. `code` is stable; `detail` is a sentence and may be reworded; `hint` names the cure."""

    type: str = Field(examples=["urn:lucid:error:session.absent"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["session.absent"])
    hint: str = ""
    place: str = ""
    request_id: str = Field(default="", description="As the header X-Request-Id: the log has it, too.")
    errors: list[FieldProblem] = []


def problem_of(error: LucidError, status: int = 0) -> Problem:
    """Return the document of an error. status: another one than the table of kinds gives."""
    status = status or outcome(error).http_status
    return Problem(
        type=TYPE_PREFIX + error.code,
        title=TITLES.get(status, "An error"),
        status=status,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        place=error.place,
    )


def request_id(given: str) -> str:
    """Return the id of a request as it was given; empty: it is ill-formed."""
    return given if _REQUEST_ID.fullmatch(given) else ""
