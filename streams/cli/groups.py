"""Groups commands below one name: the verbs of `lucid`, each imported when called, and subcommands.

1. Help, completion and a misspelt verb need only the catalog. They import no verb.
2. A misspelt command is refused with the nearest right one as its hint.
3. A group without a command prints its help on stderr, exit status 2.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperGroup

from schemas.errors import Misuse
from streams.cli import output
from streams.cli.catalog import ATTACHING, NAME, VERBS, program


class Group(TyperGroup):
    """Commands below one name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            output.note(ctx.get_help())
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, path = args[0], command_path(ctx)
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, self.list_commands(ctx), 1)
            hint = f"did you mean: {path} {near[0]}" if near else f"see {path} --help"
            raise Misuse(f"no such command {name!r}", code="usage", hint=hint)
        return super().resolve_command(ctx, args)


class Verbs(Group):
    """The verbs of `lucid`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in VERBS and cmd_name not in self.commands:
            self.commands[cmd_name] = _loaded(cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def group() -> typer.Typer:
    """An empty group for the commands of one verb."""
    return typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)


def command_path(ctx: Any) -> str:
    """A command's name for messages: `lucid sessions list`, however the program was called."""
    return NAME + str(ctx.command_path).removeprefix(program())


def _loaded(verb: str) -> Any:
    found = getattr(import_module(f"streams.cli.verbs.{verb}"), verb)
    app = typer.Typer(rich_markup_mode=None)
    app.callback()(_nothing)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=verb, help=VERBS[verb])
    else:
        app.command(verb, short_help=VERBS[verb])(found)
    command = cast(TyperGroup, typer.main.get_command(app)).commands[verb]
    if verb in ATTACHING:
        from streams.cli.wait_start import add_wait_start  # imports all that a connection needs

        add_wait_start(command)
    return command


def _nothing() -> None:
    pass
