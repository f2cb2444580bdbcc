"""Runs the command `lucid`: one command line in, one exit status out.

1. streams.cli.verbs has one file a verb, with a function or a Typer app of the verb's name. Only the called
   verb is imported (streams.cli.groups).
2. Every end of the program passes through `main`. The exit status of an error is schemas.errors.OUTCOMES'.
3. The verb decides the status before it is printed. A failed print changes the status in one case only
   (`output.final_status`).
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from schemas.errors import EXIT_OK, FULL_ERRNOS, LucidError, Misuse, NoSpace
from streams.cli import outlets, output
from streams.cli.catalog import NAME, VERBS, program
from streams.cli.groups import Verbs, command_path

COMPLETE = "_LUCID_COMPLETE"
"""Set by the shell when it asks for completions."""
EPILOG = "Exit status: 0 ok, 1 bug, 2 usage, 3 false evidence, 4 not found, 5 refused by state, "
EPILOG += "6 denied, 7 unavailable, 8 no space, 9 signer unknown, 130 interrupted."


def run() -> None:
    """The console script."""
    outlets.install()
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: half-written files are removed
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Carry out one command line; return its exit status."""
    return output.final_status(_status(arguments))


def _status(arguments: Sequence[str]) -> int:
    as_json = "--json" in arguments
    if logging.lastResort is not None:  # a verb reports its warnings itself
        logging.lastResort.setLevel(logging.ERROR)
    logging.raiseExceptions = False  # a log line that cannot be written is left out, and is no stack trace
    try:
        status = _invoke(arguments)
        return status if isinstance(status, int) else EXIT_OK
    except typer.Exit as error:
        return error.exit_code
    except typer.TyperException as error:
        return output.report_error(_misuse(error, arguments), as_json)
    except LucidError as error:
        return output.report_error(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        return output.report_interrupted(as_json)
    except SystemExit as error:  # the shell's completion ends so
        return error.code if isinstance(error.code, int) else EXIT_OK
    except MemoryError:
        full = NoSpace("there is not enough memory for this", code="memory.full")
        return output.report_error(full, as_json)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
            full = NoSpace(f"nothing more can be written: {error}", code="disk.full")
            return output.report_error(full, as_json)
        return output.report_bug(error, as_json)


def _invoke(arguments: Sequence[str]) -> object:
    """Run the verb and return its result. Raises its errors untouched: typer would hide some of them."""
    app = typer.Typer(
        cls=Verbs,
        help="Recordings of remote-desktop sessions as tamper-evident evidence.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": output.COLUMNS},
    )
    app.callback()(_root)
    if COMPLETE in os.environ:
        return app(prog_name=NAME)
    command = typer.main.get_command(app)
    with command.make_context(program(), list(arguments)) as context:
        return command.invoke(context)


def _misuse(error: typer.TyperException, arguments: Sequence[str]) -> Misuse:
    """The error of a wrong command line, in our words."""
    context: Any = getattr(error, "ctx", None)
    word = next((word for word in arguments if not word.startswith("-")), "")
    verb = f"{NAME} {word}" if word in VERBS else NAME
    path = command_path(context) if context else verb
    near = sorted(getattr(error, "possibilities", None) or ())
    text = (error.message if near else error.format_message()).rstrip(".")
    hint = f"did you mean: {path} {near[0]}" if near else f"see {path} --help"
    if path == NAME != verb:
        hint = f"an option stands behind its verb; see {verb} --help"
    return Misuse(text[:1].lower() + text[1:], code="usage", hint=hint)


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


if __name__ == "__main__":
    run()
