"""Owns the command `lucid`: its verbs, and what its exit status means.

1. One file a verb, which holds a function or a Typer app of the verb's name. Only the verb that is called is
   imported: the list of verbs needs none.
2. Every end of the program passes through `main`; the exit code of an error is schemas.errors.OUTCOMES'.
3. The status is decided before it is told. Whether stdout and stderr take what is printed changes it in one
   case only, which `output.settled` knows.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from schemas.errors import EXIT_OK, FULL_ERRNOS, LucidError, Misuse, NoSpace
from streams.cli import outlets, output
from streams.cli.catalog import NAME, VERBS, program

COMPLETE = "_LUCID_COMPLETE"
"""Set by the shell when it asks what could come next."""
ATTACHING = frozenset(
    ("record", "sessions", "watch", "verify", "export", "replay", "recover", "keys", "hosts", "serve")
)
"""Verbs that look for a running system, and wait for one that starts."""
EPILOG = "Exit status: 0 ok, 1 bug, 2 usage, 3 false evidence, 4 not found, 5 refused by state, "
EPILOG += "6 denied, 7 unavailable, 8 no space, 9 signer unknown, 130 interrupted."


def run() -> None:
    """The console script."""
    outlets.install()
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what is half written goes
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Carry out one command line; return its exit status."""
    return output.settled(_status(arguments))


def _status(arguments: Sequence[str]) -> int:
    as_json = "--json" in arguments
    if logging.lastResort is not None:  # what a verb's helpers warn of, they also handle
        logging.lastResort.setLevel(logging.ERROR)
    logging.raiseExceptions = False  # a log line that finds no room is left out, and is no stack trace
    try:
        status = invoke(arguments)
        return status if isinstance(status, int) else EXIT_OK
    except typer.Exit as error:
        return error.exit_code
    except typer.TyperException as error:
        return misused(error, as_json, verb_of(arguments))
    except LucidError as error:
        return output.report(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        return output.report_interrupted(as_json)
    except SystemExit as error:  # the shell's completion ends so
        return error.code if isinstance(error.code, int) else EXIT_OK
    except MemoryError:
        return output.report(NoSpace("there is not enough memory for this", code="memory.full"), as_json)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
            return output.report(NoSpace(f"nothing more can be written: {error}", code="disk.full"), as_json)
        return output.report_bug(error, as_json)


def invoke(arguments: Sequence[str]) -> object:
    """Run the verb; what it returned. Raises what it raised, untouched: typer would hide some of it."""
    app = application(verb_of(arguments))
    if COMPLETE in os.environ:
        return app(prog_name=NAME)
    command = typer.main.get_command(app)
    if verb_of(arguments) in ATTACHING:
        from streams.cli.starting import with_option  # with all that a connection needs

        with_option(command)
    with command.make_context(program(), list(arguments)) as context:
        return command.invoke(context)


def verb_of(arguments: Sequence[str]) -> str:
    """The verb that is called; empty where none is."""
    word = next((word for word in arguments if not word.startswith("-")), "")
    return word if word in VERBS else ""


def application(verb: str) -> typer.Typer:
    """The commands: the called verb in full, of the others their names."""
    app = typer.Typer(
        help="Recordings of remote-desktop sessions as tamper-evident evidence.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": output.COLUMNS},
    )
    app.callback()(_root)
    for name, summary in VERBS.items():
        if name != verb and COMPLETE not in os.environ:
            app.command(name, help=summary)(_named_only)
            continue
        found = getattr(import_module(f"streams.cli.verbs.{name}"), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, help=summary)
        else:
            app.command(name, short_help=summary)(found)
    return app


def misused(error: typer.TyperException, as_json: bool, verb: str) -> int:
    """Say what is wrong with the command line."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        output.note(error.format_message())
        return 2
    message = error.format_message().rstrip(".")
    path = f"{NAME} {verb}".rstrip()
    if context:
        path = NAME + context.command_path.removeprefix(program())
    message = message[:1].lower() + message[1:]
    message, _, suggested = message.partition(". Did you mean ")
    near = suggested.strip("?").split(", ")[0].strip("'")
    hint = f"did you mean: {path} {near}" if near else f"see {path} --help"
    return output.report(Misuse(message, code="usage", hint=hint), as_json)


def _version(asked: bool) -> None:
    if asked:
        output.say(f"lucid {version('lucid-sessions')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass


def _named_only() -> None:
    pass


if __name__ == "__main__":
    run()
