"""Prints docs/errors.md from the sources: every code, its sentence, its exit status, HTTP status and cure.

`just docs` runs it. Words in capitals stand for the names that the program fills in.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import OUTCOMES

ROOT = Path(__file__).parents[1]
ROOMS = ("schemas", "handlers", "infra", "streams")
KINDS = {kind.__name__: kind for kind in OUTCOMES}
MOST_SENTENCES = 3
SILENT = {
    *("self", "str", "len", "hex", "id", "name", "join", "text", "get"),
    *("message", "error", "sorted", "size_text", "digits"),
}
"""Names that say nothing of the thing that is filled in, where another name stands beside them."""
INTRO = """\
# Errors

Made by `just docs` from the sources; do not edit.

An error has a stable code, one sentence and, where a command helps, a cure. The sentence may change, the
code may not. The kind of an error decides the exit status of `lucid` and the HTTP status in its JSON form.
Words in capitals stand for names that the program fills in. `*` stands for a setting, a broken rule or an
error number of the NATS server. The codes of findings and notes of a verification are in
[verify.md](verify.md#codes-of-findings).

| kind | exit status | HTTP status | meaning |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Raised:
    """One place that makes an error."""

    code: str
    kind: str
    sentence: str
    cure: str
    path: str


def raised(tree: ast.AST, path: str) -> Iterator[Raised]:
    """The errors that one source makes under codes of its own, in order.

    Where code and sentence are parameters of a small function, its calls in the same source say them.
    """
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        calls = [*parameters(tree, scope)] if scope.name.startswith("_") else []
        for node in ast.walk(scope):
            kind = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if not isinstance(node, ast.Call) or kind not in KINDS:
                continue
            words = {word.arg: word.value for word in node.keywords}
            for given in calls or [{}]:
                texts = assigned(scope) | given
                code = text_of(words["code"], texts, "*") if "code" in words else ""
                sentence = text_of(node.args[0], texts) if node.args else ""
                if code:
                    yield Raised(code, kind, sentence, text_of(words.get("hint"), texts), path)


def parameters(tree: ast.AST, scope: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[dict[str, ast.expr]]:
    """What each call of a function in the same source gives it, by the name of the parameter."""
    names = [one.arg for one in scope.args.args if one.arg not in ("self", "cls")]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == scope.name
        ):
            named = {word.arg: word.value for word in node.keywords if word.arg}
            yield dict(zip(names, node.args, strict=False)) | named


def assigned(scope: ast.AST) -> dict[str, ast.expr]:
    """Texts that a function gives a name, by that name."""
    return {
        node.targets[0].id: node.value
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def text_of(node: ast.expr | None, texts: dict[str, ast.expr], filled: str = "") -> str:
    """A literal text, with capitals (or `filled`) for what is filled in; empty where it is no literal."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(values):
            parts = []
            for part in values:
                if isinstance(part, ast.FormattedValue):
                    parts.append(text_of(part.value, texts) or filled or name_of(part.value))
                else:
                    parts.append(text_of(part, {}))
            return "".join(parts)
        case ast.Name(name) if name in texts:
            return text_of(texts[name], {key: value for key, value in texts.items() if key != name})
        case ast.IfExp(_, body, orelse):
            return text_of(body, texts) or text_of(orelse, texts)
    return ""


def name_of(node: ast.expr) -> str:
    """A word in capitals for an expression: the first name in it that says something, or a member it gets."""
    found = (getattr(one, "id", getattr(one, "attr", "")) for one in ast.walk(node))
    names = [name.strip("_").removesuffix("_id") for name in found if name]
    said = [name for name in names if name not in SILENT]
    match node:
        case ast.Call(ast.Attribute(_, "get"), [ast.Constant(str(member)), *_]) if not said:
            return member.upper()
    said = said or [name for name in names if name != "self"]
    return said[0].upper() if said else "…"


def cell(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("|", "\\|")).strip()


def errors() -> dict[str, list[Raised]]:
    """Every error of the sources by code; one that is made inside two functions counts once."""
    found: dict[str, list[Raised]] = defaultdict(list)
    sources = "".join(path.read_text() for path in (ROOT / "schemas").rglob("*.py"))
    documents = re.findall(r'NAME: ClassVar\[str\] = "(\w+)"', sources)
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for one in raised(ast.parse(path.read_text()), str(path.relative_to(ROOT))):
            codes = (
                [f"{name}{one.code[1:]}" for name in documents] if one.code.startswith("*") else [one.code]
            )
            for code in codes:
                if one not in found[code]:
                    found[code].append(one)
    return found


def row(code: str, places: list[Raised]) -> str:
    outcome = OUTCOMES[KINDS[places[0].kind]]
    sentences = list(dict.fromkeys(cell(one.sentence) for one in places if one.sentence))
    cures = list(dict.fromkeys(cell(one.cure) for one in places if one.cure))
    told = "; or: ".join(sentences[:MOST_SENTENCES]) or "(the sentence comes from its cause)"
    cure, made = "; or: ".join(cures[:2]), ", ".join(dict.fromkeys(f"`{one.path}`" for one in places))
    return f"| `{code}` | {told} | {outcome.exit_code} | {outcome.http_status} | {cure} | {made} |"


def page() -> str:
    lines = [INTRO.rstrip("\n")]
    for kind, outcome in OUTCOMES.items():
        meaning = (kind.__doc__ or "").partition("\n")[0].rstrip(".")
        lines.append(f"| {kind.__name__} | {outcome.exit_code} | {outcome.http_status} | {meaning} |")
    areas: dict[str, list[str]] = defaultdict(list)
    for code, places in sorted(errors().items()):
        areas[code.partition(".")[0]].append(row(code, places))
    for area, rows in areas.items():
        lines += [
            "",
            f"## {area}",
            "",
            "| code | sentence | exit | HTTP | cure | made in |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
