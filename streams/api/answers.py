"""Describes answers for the OpenAPI document: problems, bodies of bytes, and their headers.

1. A header that is always there is `required`; tests compare answers with these descriptions.
2. A status that has headers of its own stands alone; `4XX` and `5XX` are the problems besides.
"""

from typing import Any

from schemas.api.problem import MEDIA_TYPE, REQUEST_ID, REQUEST_ID_FORM, Problem

REF = "#/components/schemas/{model}"
LINES, ZIP = "application/x-ndjson", "application/zip"

Answers = dict[int | str, dict[str, Any]]


def header(description: str, *, always: bool = True) -> dict[str, Any]:
    """A header of an answer."""
    return {"description": description, "required": always, "schema": {"type": "string"}}


ETAG = {"ETag": header("A new one with other bytes.")}
SOME_ETAG = {"ETag": header("A new one with other bytes; none while they grow.", always=False)}
LOCATION = {"Location": header("The path of the new thing.")}
ACCEPT_RANGES = {"Accept-Ranges": header("bytes")}
DISPOSITION = {"Content-Disposition": header("A file name.")}
CACHE = {"Cache-Control": header("Whether, and by whom, the answer may be kept.")}
_RETRY = {"Retry-After": header("Seconds.")}
_SOME_RETRY = {"Retry-After": header("Seconds; where waiting may help.", always=False)}
_CONTENT_RANGE = {"Content-Range": header("Which bytes these are, and of how many.")}


def problem(description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    """A problem document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}}
    return {"description": description, "content": content, "headers": headers or {}}


TOO_MANY: Answers = {429: problem("Too many requests, or work, at once.", _RETRY)}
OPEN_PROBLEMS: Answers = {**TOO_MANY, "5XX": problem("The service cannot answer.")}
"""The errors of routes that need no token."""
PROBLEMS: Answers = {
    401: problem("No token, or none that counts.", {"WWW-Authenticate": header("Bearer")}),
    **TOO_MANY,
    "4XX": problem("The request is wrong, not allowed, or not possible now.", _SOME_RETRY),
    503: problem("Not available now.", _RETRY),
    "5XX": problem("The service cannot answer.", _SOME_RETRY),
}
"""The errors of every other route."""

CREATED: Answers = {201: {"headers": LOCATION}}


def of_bytes(media_type: str, headers: dict[str, Any], etag: dict[str, Any] = ETAG) -> Answers:
    """The answers to a GET of bytes with ranges and conditions."""
    headers = {**ACCEPT_RANGES, **CACHE, **etag, **headers}
    content: dict[str, Any] = {media_type: {}}
    return {
        200: {"description": "All bytes.", "content": content, "headers": headers},
        206: {"description": "The range.", "content": content, "headers": {**headers, **_CONTENT_RANGE}},
        304: {"description": "The caller has these bytes already.", "headers": {**CACHE, **etag}},
        412: problem("The ETag is another one than If-Match names."),
        416: problem("The range holds no byte.", _CONTENT_RANGE),
    }


def of_head(headers: dict[str, Any], etag: dict[str, Any] = ETAG) -> Answers:
    """The answers to a HEAD of the same bytes."""
    found = of_bytes("", headers, etag)
    length = {"Content-Length": header("Bytes of the whole.")}
    whole = {"description": "The headers of all bytes.", "headers": {**found[200]["headers"], **length}}
    return {200: whole, 304: found[304], 412: found[412]}


def of_stream(media_type: str, headers: dict[str, Any] | None = None) -> Answers:
    """The answer with a body of unknown length, without ranges."""
    return {200: {"content": {media_type: {}}, "headers": {**CACHE, **(headers or {})}}}


def with_problem(document: dict[str, Any]) -> dict[str, Any]:
    """The document, with the form of a problem among its schemas."""
    schema = Problem.model_json_schema(ref_template=REF)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs"))
    schemas["Problem"] = schema
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def with_request_ids(document: dict[str, Any]) -> dict[str, Any]:
    """The document, with the header of each request and of each answer that names the request."""
    parameter = {
        "name": REQUEST_ID,
        "in": "header",
        "required": False,
        "description": "The caller's id of this request, for the log; another form counts as none.",
        "schema": {"type": "string", "pattern": f"^{REQUEST_ID_FORM}$"},
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            others = [one for one in operation.get("parameters", ()) if one["name"] != REQUEST_ID]
            operation["parameters"] = [*others, parameter]
            for answer in operation["responses"].values():
                named = header("The id of this request.")
                answer["headers"] = {**answer.get("headers", {}), REQUEST_ID: named}
    return document
