"""Writes the template of a configuration and the page docs/settings.md, both from VARIABLES alone.

Neither depends on the machine: a test compares the page.
"""

import textwrap
from collections.abc import Iterator

from schemas.config.settings import VARIABLES, Settings
from schemas.config.variable import Variable

COLUMNS = 80
DEFAULTS = Settings()
PRECEDENCE = "A variable of the environment wins over the file, the file over the default."

PAGE = f"""# Settings

Written by `lucid config reference`; `lucid config` shows what holds here, and why.

{PRECEDENCE} The file is the one that
`LUCID_CONFIG` names: one flat table of these names, in YAML or JSON (what begins with `{{` is JSON).
`lucid config template` prints one to begin with (`--yaml`), or the same as an environment file.

An empty value counts as unset. Two names of one variable with two values are an error, as is everything
that is not allowed, a name that is no variable, and a variable that stands twice; then nothing starts, and
the exit code is 2.
"""


def template(yaml: bool) -> str:
    """Every variable with its default, commented out: for LUCID_CONFIG (yaml), or for an environment."""
    return "\n".join(_template("#{}: {}" if yaml else "#{}={}")) + "\n"


def page() -> str:
    """docs/settings.md."""
    whole = [variable for variable in VARIABLES if not variable.of_stage]
    stages = [variable for variable in VARIABLES if variable.of_stage]
    parts = [PAGE, *_table(whole), "", "## Limits of the stages", "", *_table(stages)]
    return "\n".join(parts) + "\n"


def _template(line: str) -> Iterator[str]:
    yield f"# {PRECEDENCE}"
    for variable in VARIABLES:
        yield ""
        text = f"{variable.effect}. Allowed: {variable.kind.allowed}"
        yield from textwrap.wrap(text, COLUMNS, initial_indent="# ", subsequent_indent="#   ")
        if variable.synonyms:
            yield f"# Also: {', '.join(variable.synonyms)}"
        yield line.format(variable.name, _default(variable)).rstrip()


def _table(variables: list[Variable]) -> Iterator[str]:
    yield "| variable | default | allowed | what it does |"
    yield "|---|---|---|---|"
    for variable in variables:
        names = "<br>".join(f"`{name}`" for name in variable.names)
        default = _default(variable) or "unset"
        effect = f"{variable.effect} (secret)" if variable.secret else variable.effect
        yield f"| {names} | {default} | {variable.kind.allowed} | {effect} |"


def _default(variable: Variable) -> str:
    return variable.shown(DEFAULTS.value(variable))
