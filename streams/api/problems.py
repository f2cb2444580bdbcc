"""Answers every error as a problem document; its status comes from the table of schemas/errors.py."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from schemas.api.problem import MEDIA_TYPE, REQUEST_ID, FieldProblem, Problem, problem_of
from schemas.config.logs import logger
from schemas.errors import Busy, EvidenceFalse, LucidError, Misuse, Retryable, Unauthenticated
from schemas.ports.metrics import count_false
from schemas.ports.telemetry import REQUEST
from streams.api.measured import PROBLEM
from streams.api.parts import parts_of

RETRY_AFTER_S = 2
"""Told with every error that may pass by itself."""

log = logger("lucid.api")


def install(app: FastAPI) -> None:
    """Answer all errors of the application here."""
    app.add_exception_handler(LucidError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _by_framework)
    app.add_exception_handler(Exception, _unforeseen)


class ProblemAnswer(JSONResponse):
    """A problem document. The scope of its request then names its code (streams/api/measured.py)."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None) -> None:
        told = problem.model_copy(update={"request_id": REQUEST.get()})
        super().__init__(
            told.model_dump(exclude_defaults=False), problem.status, headers, media_type=MEDIA_TYPE
        )
        self._code = problem.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROBLEM] = self._code
        await super().__call__(scope, receive, send)


def respond(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    return ProblemAnswer(problem, headers)


async def _expected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LucidError)
    headers = {}
    if isinstance(error, Retryable):
        headers["Retry-After"] = str(getattr(error, "retry_after_s", RETRY_AFTER_S))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, EvidenceFalse):
        count_false(parts_of(request).meter, "api").add()
    problem = problem_of(error)
    if problem.status >= 500 and not isinstance(error, Busy):
        log.warning("request_failed", method=request.method, path=_template(request), code=error.code)
    return respond(problem, headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [
        FieldProblem(place=".".join(str(part) for part in one["loc"]), message=one["msg"])
        for one in error.errors()[:20]
    ]
    first = found[0]
    problem = problem_of(Misuse(f"{first.place}: {first.message}", code="request.invalid"), 422)
    return respond(problem.model_copy(update={"errors": found}))


async def _by_framework(request: Request, error: Exception) -> JSONResponse:
    """Routes that are not there, methods that a route does not have, bodies that are not JSON."""
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path[:200]}: {error.detail}"
    hint = "GET /openapi.json lists every route" if error.status_code == 404 else ""
    problem = problem_of(Misuse(text, code=f"http.{error.status_code}", hint=hint), error.status_code)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return respond(problem, headers)


def _methods(request: Request) -> set[str]:
    """Every method of this path: its routes have one each."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    return {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    log.exception("request_failed", method=request.method, path=_template(request), exc_info=error)
    problem = problem_of(LucidError("it failed inside; the log says why", code="api.bug"))
    return respond(problem, {REQUEST_ID: REQUEST.get()})  # outside of all middleware


def _template(request: Request) -> str:
    """The path without the names in it."""
    route = request.scope.get("route")
    return getattr(route, "path", "") or "unknown"
