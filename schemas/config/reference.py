"""Writes the template of a configuration and the page docs/settings.md, both from GROUPS alone.

Neither depends on the machine: tests compare docs/settings.md and docs/lucid.env.example.
"""

import textwrap
from collections.abc import Iterable, Iterator

from schemas.config.services import ROLES
from schemas.config.settings import GROUPS, Settings
from schemas.config.variable import Variable

COLUMNS = 80
DEFAULTS = Settings()
PRECEDENCE = (
    "A variable of the environment wins over the file of the role, that over the file of all, "
    "the file over the default."
)
FILES = {
    "LUCID_CONFIG": "a file for every command and role, in YAML or JSON",
    **{
        f"{role}_CONFIG_PATH": f"a file for `lucid serve {role.lower()}` alone, over LUCID_CONFIG"
        for role in ROLES
    },
}
"""The variables that name a file, and their effect. They stand in the environment alone."""

PAGE = f"""# Settings

Written by `lucid config reference`; `lucid config` shows what holds here, and why.

{PRECEDENCE}
The file of all is the one that `LUCID_CONFIG` names; `RECORDER_CONFIG_PATH`, `PIPELINE_CONFIG_PATH`,
`PROCESSOR_CONFIG_PATH`, `STORAGE_CONFIG_PATH` and `API_CONFIG_PATH` each name one for `lucid serve` of that
role. A file is one flat table of the names below, in YAML or JSON (what begins with `{{` is JSON).
`lucid config template` prints an environment file to begin with, `--yaml` a file for `LUCID_CONFIG`;
[lucid.env.example](lucid.env.example) is the first of them.

An empty value counts as unset. Two names of one variable with two values are an error, as is everything
that is not allowed, a name in a file that is no variable, and a variable that stands twice; then nothing
starts, and the exit code is 2. A name in the environment that is nearly one of these is warned about, as is
a variable that is set and has no effect.
"""


def template(yaml: bool) -> str:
    """Every variable with its default, commented out: for LUCID_CONFIG (yaml), or for an environment."""
    return "\n".join(_template("#{}: {}" if yaml else "#{}={}", yaml)) + "\n"


def page() -> str:
    """docs/settings.md."""
    tables = (line for group in GROUPS for line in ("", f"## {group.title}", "", *_table(group.variables)))
    return "\n".join([PAGE.rstrip("\n"), *tables]) + "\n"


def _template(line: str, yaml: bool) -> Iterator[str]:
    yield from _comment(PRECEDENCE)
    if not yaml:
        for name, effect in FILES.items():
            yield from ("", *_comment(f"{effect}. Allowed: a file"), f"#{name}=")
    for group in GROUPS:
        yield from ("", f"# --- {group.title} ---")
        for variable in group.variables:
            yield ""
            yield from _comment(f"{variable.effect}. Allowed: {variable.kind.allowed}")
            if variable.synonyms:
                yield f"# Also: {', '.join(variable.synonyms)}"
            yield line.format(variable.name, _default(variable)).rstrip()


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent="# ", subsequent_indent="#   ")


def _table(variables: Iterable[Variable]) -> Iterator[str]:
    yield "| variable | default | allowed | what it does |"
    yield "|---|---|---|---|"
    for variable in variables:
        names = "<br>".join(f"`{name}`" for name in variable.names)
        default = _default(variable) or "unset"
        effect = f"{variable.effect} (secret)" if variable.secret else variable.effect
        yield f"| {names} | {default} | {variable.kind.allowed} | {effect} |"


def _default(variable: Variable) -> str:
    return variable.shown(DEFAULTS.value(variable))
