"""Refuses the settings of a session that nothing obeys yet: nobody believes that sound is recorded."""

from collections.abc import Mapping

from schemas.errors import Misuse


def refuse_unsupported(wanted: Mapping[str, bool]) -> None:
    """Raise Misuse (session.unsupported) for the first setting that is switched on. wanted: by name."""
    for name, on in wanted.items():
        if on:
            raise Misuse(
                f"{name} cannot be switched on: nothing obeys it yet (allowed: false)",
                code="session.unsupported",
                hint=f"leave {name} out",
                place=name,
            )
