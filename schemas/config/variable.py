"""One variable of the environment or of a settings file: how it is read, shown and refused.

A message names the variable, the given text, its origin and the allowed values. It never repeats a secret.
"""

import re
from dataclasses import field
from typing import Any, NamedTuple

from schemas.config.nats_url import BadUrl
from schemas.config.values import Kind
from schemas.errors import Misuse

MASK = "***"
WITHOUT_EFFECT = "accepted, without effect"
"""So begins the effect of a variable that nothing reads."""


class Variable(NamedTuple):
    """One variable of the environment or of the settings file, with the field that it sets."""

    name: str
    kind: Kind
    effect: str
    synonyms: tuple[str, ...] = ()
    secret: bool = False
    field: str = ""
    """As `VARIABLES` gives it: an attribute of `Settings`, or `<table>.<row>.<attribute>`."""

    @property
    def in_table(self) -> bool:
        return "." in self.field

    @property
    def without_effect(self) -> bool:
        return self.effect.startswith(WITHOUT_EFFECT)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.synonyms)

    def in_row(self, table: str, row: str, prefix: str, words: str) -> "Variable":
        """Return the variable of one row of a table. words: stands for {} in the effect."""
        return self._replace(
            name=f"{prefix}_{self.name}",
            effect=self.effect.format(words),
            field=f"{table}.{row}.{self.field}",
        )

    def shown(self, value: Any) -> str:
        """Return the value as text, a secret as ***; an empty text stands for unset."""
        if value is None or value == "":
            return ""
        return MASK if self.secret else self.kind.write(value)

    def read(self, given: str, origin: str) -> Any:
        """Return the value of the text `given`, or raise Misuse that names `origin`."""
        try:
            return self.kind.parse(given.strip())
        except BadUrl as error:  # its reason holds no credentials
            reason = f"{origin} is {_without_credentials(given.strip())}: {error}"
        except ValueError:
            hidden = self.secret or "@" in given  # credentials, in a URL
            reason = f"{origin} is {MASK if hidden else repr(given[:80])}"
        raise Misuse(f"{reason}; allowed: {self.kind.allowed}", code=f"config.{self.field}") from None


def _without_credentials(given: str) -> str:
    """The text of a wrong URL, if no part of it can be a password."""
    rest = given.partition("://")[2] or given
    return MASK if re.search(r"[@?#]|:(?!//|[0-9]{1,5}([,/]|$))", rest) else repr(given[:80])


def setting(
    default: Any,
    name: str,
    kind: Kind,
    effect: str,
    *synonyms: str,
    secret: bool = False,
    in_repr: bool = True,
) -> Any:
    """A dataclass field that a variable sets."""
    variable = Variable(name, kind, effect, synonyms, secret)
    return field(default=default, repr=in_repr, metadata={"variable": variable})
