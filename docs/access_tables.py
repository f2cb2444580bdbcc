"""Writes the tables of access into docs/security.md, between their marks: roles, then commands.

`just docs` runs it. With --check it changes nothing, and ends with 1 if a table is not up to date.
"""

import re
import sys
from pathlib import Path

from handlers.access.commands import COMMANDS
from handlers.access.permissions import TABLE, Reach
from schemas.access import EFFECTS, Role

PAGE = Path(__file__).with_name("security.md")
SHOWN = {Reach.NONE: "", Reach.OWN: "own", Reach.ALL: "yes"}
MARKED = "<!-- {0} -->\n{1}<!-- end of {0} -->"


def roles() -> str:
    """One row a permission, one column a role."""
    lines = [f"| permission | {' | '.join(Role)} |", "|---" * (len(Role) + 1) + "|"]
    for permission, given in TABLE.items():
        cells = " | ".join(SHOWN[given.get(role, Reach.NONE)] for role in Role)
        lines.append(f"| `{permission}`: {EFFECTS[permission]} | {cells} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """One row a permission, with the commands that need it."""
    needed = {
        permission: [n for n, row in COMMANDS.items() if row.permission is permission] for permission in TABLE
    }
    lines = ["| permission | commands |", "|---|---|"]
    lines += [
        f"| `{one}` | {', '.join(f'`{name}`' for name in names)} |" for one, names in needed.items() if names
    ]
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """The page with its tables as they are now."""
    for name, table in (("roles", roles()), ("commands", commands())):
        block = re.compile(rf"<!-- {name} -->\n.*?<!-- end of {name} -->", re.DOTALL)
        assert len(block.findall(page)) == 1, name
        page = block.sub(lambda _, name=name, table=table: MARKED.format(name, table), page)
    return page


if __name__ == "__main__":
    text = PAGE.read_text()
    if "--check" in sys.argv:
        sys.exit(text != written(text))
    PAGE.write_text(written(text))
