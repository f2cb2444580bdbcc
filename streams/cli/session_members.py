"""The options of `lucid` for the members of a session, and the same request body that the API takes.

1. An option that is not given is None: the member keeps its default, or what it is now.
2. The API's models check the values (schemas/api/requests.py): there is no second list of rules.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from schemas.errors import Misuse

Model = TypeVar("Model", bound=BaseModel)

Title = Annotated[str | None, typer.Option("--name", help="Its title, for people.")]
Description = Annotated[str | None, typer.Option(help="More about it.")]
Owner = Annotated[str | None, typer.Option(help="To whom it belongs.")]
Project = Annotated[str | None, typer.Option(help="Its project.")]
Environment = Annotated[str | None, typer.Option(help="Its environment.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")]
Priority = Annotated[str | None, typer.Option(help="low, normal, high or critical.")]
RetentionDays = Annotated[int | None, typer.Option(help="Destroy it so long after its seal, not before.")]
MaxSize = Annotated[float | None, typer.Option("--max-size-gb", help="Stop it when it is larger.")]
Encryption = Annotated[str | None, typer.Option(help="xchacha20-poly1305 or aes-256-gcm.")]
Compression = Annotated[str | None, typer.Option(help="none, zstd, lz4, brotli or gzip.")]
Size = Annotated[
    str | None, typer.Option("--size", "--resolution", help="Of the drawn desktop; default: 1280x720.")
]
FrameRate = Annotated[int | None, typer.Option(help="Of the drawn desktop; default: 30.")]
Quality = Annotated[str | None, typer.Option(help="Of the drawn desktop: low, medium, high or ultra.")]
Bitrate = Annotated[int | None, typer.Option(help="Of the drawn desktop, at most so many kbit/s.")]
Cursor = Annotated[
    bool | None, typer.Option("--cursor/--no-cursor", help="Whether the drawn pointer is recorded.")
]
OPTIONS = {"tags": "tag", "resolution": "size"}
"""Members whose option has another name."""


def given(**members: Any) -> dict[str, Any]:
    """Return the members that are given."""
    return {name: value for name, value in members.items() if value is not None and value != []}


def checked(model: type[Model], members: Mapping[str, Any]) -> Model:
    """Return the request body. Raises Misuse (option.value) that names the option."""
    try:
        return model.model_validate({name: member for name, member in members.items() if member != {}})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        member = next(str(part) for part in reversed(first["loc"]) if isinstance(part, str))
        option = "--" + OPTIONS.get(member, member).replace("_", "-")
        raise Misuse(f"{option} {str(first['input'])[:80]!r}: {first['msg']}", code="option.value") from None
