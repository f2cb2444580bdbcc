"""The verb `lucid config`: shows the settings in effect and their origins, and lists all of them."""

from typing import Annotated

import typer

from schemas.config import reference as settings_pages
from schemas.config.settings import VARIABLES
from streams.cli import output
from streams.cli.output import JsonFlag
from streams.roles.drivers import CONFIG, Installation, config_path, effective

DEFAULT = "default"
NAME = max(len(variable.name) for variable in VARIABLES)

config = typer.Typer(rich_markup_mode=None)


@config.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show every setting, its value, and where it came from; secrets are masked."""
    if context.invoked_subcommand:
        return
    settings, path = effective(Installation.here().settings), config_path()
    shown = [
        (
            variable.name,
            variable.shown(settings.value(variable)),
            settings.origins.get(variable.field, DEFAULT),
        )
        for variable in VARIABLES
    ]
    if as_json:
        listed = [{"name": name, "value": value, "from": origin} for name, value, origin in shown]
        output.emit({"file": path or None, "settings": listed})
        return
    output.note(f"the environment over {path or f'a file (none: {CONFIG} is unset)'} over defaults")
    for name, value, origin in shown:
        line = f"{name:<{NAME}}  {value or '-':<19}  {origin}"
        output.say(
            line if len(line) <= output.COLUMNS else f"{name:<{NAME}}  {value}\n{'':>{NAME}}  {origin}"
        )


@config.command(short_help="Print every variable with its default.")
def template(
    yaml: Annotated[bool, typer.Option("--yaml", help=f"A file for {CONFIG}.")] = False,
) -> None:
    """Print every variable with its default, commented out: an environment file, or --yaml."""
    typer.echo(settings_pages.template(yaml), nl=False)


@config.command()
def reference() -> None:
    """Print docs/settings.md."""
    typer.echo(settings_pages.page(), nl=False)
