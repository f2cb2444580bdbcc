"""The verbs `lucid keys copy` and `lucid keys restore`: seal a copy of keys/, and put one back."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import Misuse, NotFound
from schemas.ports import Jet
from schemas.types import utc_text
from streams.cli import attach, output
from streams.cli.output import JsonFlag, YesFlag
from streams.keys.copies import Copied, make_copy, restore
from streams.roles.drivers import Installation, new_file
from streams.scheduling import clock

DAY_US = 86_400_000_000
KEPT_DAYS = 90
LABEL = re.compile(r"[A-Za-z0-9_.-]{1,100}")

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="Read the passphrase from its first line; default: ask.",
    ),
]


def copy(
    target: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="Where the copy goes; nothing is overwritten.")
    ],
    label: Annotated[str, typer.Option(help="Its name in the log; default: its time.")] = "",
    keep_days: Annotated[
        int, typer.Option(min=1, max=36_500, help="How long you keep it; tombstones name it so long.")
    ] = KEPT_DAYS,
    passphrase_file: PassphraseFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Seal a copy of keys/ under a passphrase. It opens every session that has a key now.

    Leave keys/ out of plain backups of the data directory: they would open sessions destroyed later.
    """
    now_us = clock.now_us()
    label = label or datetime.fromtimestamp(now_us / 1e6, UTC).strftime("keys-%Y%m%d-%H%M%S")
    if LABEL.fullmatch(label) is None:
        raise Misuse(f"label {label[:120]!r} is not allowed: 1-100 of A-Z a-z 0-9 _ . -", code="usage")
    if target.is_dir():
        target = target / f"{label}.lucid-keys"
    here, until_us = Installation.here(), now_us + keep_days * DAY_US
    passphrase = _passphrase(passphrase_file, again=True)

    async def work() -> Copied:
        async with attach.attached() as jet:
            return await _copied(here, jet, target, passphrase, label, until_us)

    _print(attach.run(work()), target, "sealed in", as_json)
    if not as_json:
        output.note("with its passphrase it opens everything, without it nothing: keep them apart")


def restore_copy(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="As `lucid keys copy` made it.")],
    newest: Annotated[
        bool, typer.Option("--newest", help="There is no newer copy: give up every key that it lacks.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a copy of keys/ back, while nothing runs. Newer keys here stay; erased keys stay erased."""
    if newest:
        output.confirm("Give up every key that was made after this copy?", yes)
    if not source.exists():  # before anybody types its passphrase
        raise NotFound(f"{source} is not there", code="keys.copy_absent")
    here, passphrase = Installation.here(), _passphrase(passphrase_file, again=False)
    here.data.lock()
    try:
        restored = restore(here.key_folder, here.key_files, here.keyring, source, passphrase, newest=newest)
    finally:
        here.data.unlock()
    _print(restored, here.key_folder.path, "put back into", as_json)
    if not as_json:
        output.note("the next start erases again the keys of sessions destroyed since; then: lucid doctor")


async def _copied(
    here: Installation, jet: Jet, target: Path, passphrase: str, label: str, until_us: int
) -> Copied:
    here.key_folder.use()  # a folder moved meanwhile would be copied with its keys erased
    await here.logged_keys(jet).check()
    with new_file(target) as file:
        return await make_copy(
            jet, here.key_folder, here.key_files, file, passphrase, label=label, until_us=until_us
        )


def _passphrase(file: Path | None, *, again: bool) -> str:
    if file is not None:
        try:
            return file.read_text().partition("\n")[0].rstrip("\r")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Misuse(f"{file} cannot be read: {why}", code="keys.passphrase") from None
    if sys.stdin is None or not sys.stdin.isatty():
        hint = "give --passphrase-file FILE"
        raise Misuse("nobody can be asked for the passphrase here", code="usage", hint=hint)
    given: str = typer.prompt("Passphrase of the copy", hide_input=True, confirmation_prompt=again, err=True)
    return given


def _print(copied: Copied, where: Path, verb: str, as_json: bool) -> None:
    copy, count = copied.description, output.count_of(copied.sessions, "session")
    times = {"made_us": copy.made_us, "until_us": copy.until_us}
    result = {"file": str(where), "label": copy.label, **times, "sessions": copied.sessions}
    made = utc_text(copy.made_us, seconds=False)
    line = f"{copy.label}, made {made}: the keys of {count}, {verb} {output.short_path(where)}"
    output.print_result(result, [line], as_json)
