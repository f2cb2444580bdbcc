"""Reads a settings file: one flat table of variables, in YAML or JSON, as text.

1. A file that begins with `{` is JSON, every other one YAML. Neither guesses types: 010, 1:30 and no stay the
   written text, for each variable to read.
2. A variable that is set twice is an error, not a guess. A file of comments sets nothing.
3. A message names the line, never its text, which may hold a secret.
"""

import json
from pathlib import Path
from typing import Any, NoReturn

import yaml

from schemas.errors import Misuse


def read_file(path: str, variable: str) -> dict[str, str]:
    """Return the text of each variable, or raise Misuse (config.file). variable: names the file."""
    try:
        written = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        _refuse(variable, path, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        _refuse(variable, path, "is not UTF-8 text")
    try:
        pairs = _json(written) if written.lstrip().startswith("{") else _yaml(written)
    except json.JSONDecodeError as error:
        _refuse(variable, path, f"is not JSON: line {error.lineno}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        _refuse(variable, path, f"is not YAML: line {mark.line + 1 if mark else 1}")
    except (ValueError, RecursionError, yaml.YAMLError):
        _refuse(variable, path, "is not one flat table of variables, `NAME: value`")
    found = dict(pairs)
    twice = sorted({name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1})
    if twice:
        _refuse(variable, path, f"sets {', '.join(twice)[:200]} twice")
    return found


def _json(written: str) -> list[tuple[str, str]]:
    pairs = json.loads(written, object_pairs_hook=list, parse_int=str, parse_float=str)
    return [(name, _text(value)) for name, value in pairs]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise ValueError
    return value


def _yaml(written: str) -> list[tuple[str, str]]:
    """Composes nodes and constructs no objects, so YAML executes and converts nothing."""
    table = yaml.compose(written, Loader=yaml.BaseLoader)
    if table is None:
        return []
    if not isinstance(table, yaml.MappingNode):
        raise ValueError
    return [(_scalar(name), _scalar(value)) for name, value in table.value]


def _scalar(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError
    return str(node.value)


def _refuse(variable: str, path: str, why: str) -> NoReturn:
    raise Misuse(f"{variable}: {path} {why}", code="config.file") from None
