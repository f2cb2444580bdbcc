"""The refusal that the stores of read models share: a generation that is there no more."""

from schemas.errors import Conflict


def given_up(generation: int) -> Conflict:
    return Conflict(
        f"generation {generation} of the read models was replaced by another one",
        code="views.generation",
        hint="lucid projections show",
    )
