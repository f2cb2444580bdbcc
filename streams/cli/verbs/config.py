"""The verb `lucid config`: shows the settings in effect and their origins, and lists all of them."""

from typing import Annotated

import typer

from schemas.config import reference as settings_pages
from schemas.config.production import NEEDS
from schemas.config.settings import VARIABLES
from schemas.errors import Misuse
from streams.cli import output
from streams.cli.output import JsonFlag
from streams.roles.drivers import Installation, config_files, effective, near_misses

DEFAULT = "default"
NAME = max(len(variable.name) for variable in VARIABLES)
ROLES = tuple(filter(None, NEEDS))

config = typer.Typer(rich_markup_mode=None)


@config.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    as_json: JsonFlag = False,
    role: Annotated[str, typer.Option(help=f"Of lucid serve: {', '.join(ROLES)}.")] = "",
) -> None:
    """Show every setting, its value, and where it came from; secrets are masked.

    With --role as that role sees them, and checked as it checks them.
    """
    if context.invoked_subcommand:
        return
    if role not in NEEDS:
        raise Misuse(f"there is no role {role[:80]!r}", code="usage", hint=f"allowed: {', '.join(ROLES)}")
    settings = effective(Installation.here(role=role).settings)
    named = config_files(role=role)
    files = [path for _, path in named]
    shown = [
        (
            variable.name,
            variable.shown(settings.value(variable)),
            settings.origins.get(variable.field, DEFAULT),
        )
        for variable in VARIABLES
    ]
    unknown = near_misses()
    unused = [one for one in VARIABLES if one.without_effect and one.field in settings.origins]
    if as_json:
        output.emit(
            {
                "file": dict(named).get("LUCID_CONFIG"),
                "order": ["environment", *files, "defaults"],
                "settings": [{"name": name, "value": value, "from": origin} for name, value, origin in shown],
                "unknown": [{"name": name, "nearest": near or None} for name, near in unknown],
                "without_effect": [variable.name for variable in unused],
            }
        )
        return
    over = " over ".join(files) or "a file (none: LUCID_CONFIG is unset)"
    output.note(f"the environment over {over} over defaults")
    for name, value, origin in shown:
        line = f"{name:<{NAME}}  {value or '-':<19}  {origin}"
        output.say(
            line if len(line) <= output.COLUMNS else f"{name:<{NAME}}  {value}\n{'':>{NAME}}  {origin}"
        )
    for name, near in unknown:
        output.note(f"{name} is no variable of ours{f'; did you mean {near}?' if near else ''}")
    for variable in unused:
        output.note(f"{variable.name}: {variable.effect}")


@config.command(short_help="Print every variable with its default.")
def template(
    yaml: Annotated[bool, typer.Option("--yaml", help="A file for LUCID_CONFIG.")] = False,
) -> None:
    """Print every variable with its default, commented out: an environment file, or --yaml."""
    typer.echo(settings_pages.template(yaml), nl=False)


@config.command()
def reference() -> None:
    """Print docs/settings.md."""
    typer.echo(settings_pages.page(), nl=False)
