"""The open alarms of the scrub: raise, close, acknowledge, drop. Pure.

1. One alarm a place. A place that is found damaged again keeps the time of its first finding.
2. An acknowledged alarm stays acknowledged while the damage is the same. Other damage there is a new alarm.
3. Only a check of the place, or the end of its session, closes an alarm. A new pass closes none.
"""

from collections.abc import Callable

from schemas.events.scrub import ALARMS_MOST, Alarm

Alarms = tuple[Alarm, ...]


def find(alarms: Alarms, session: str, place: str) -> Alarm | None:
    """Return the alarm of a place; None: there is none."""
    return next((one for one in alarms if (one.session, one.place) == (session, place)), None)


def places_in(alarms: Alarms, session: str, number: int) -> set[tuple[str, str]]:
    """Return session and place of the alarms of a session that a pass has found."""
    return {(one.session, one.place) for one in alarms if (one.session, one.number) == (session, number)}


def raised(alarms: Alarms, found: Alarm) -> Alarms:
    """Return the alarms with one that was found now; the same ones, if there is no room for it."""
    before = find(alarms, found.session, found.place)
    if before is None:
        return (*alarms, found) if len(alarms) < ALARMS_MOST else alarms
    if found.repairing:
        found = found.model_copy(update={"code": before.code, "text": before.text})
    kept = {"since_us": before.since_us}
    if (before.code, before.text) == (found.code, found.text):
        kept |= {name: getattr(before, name) for name in ("acknowledged_us", "acknowledged_by", "noted")}
    return tuple(found.model_copy(update=kept) if one is before else one for one in alarms)


def closed(alarms: Alarms, ended: Callable[[Alarm], bool]) -> Alarms:
    """Return the alarms without those that have ended."""
    return tuple(one for one in alarms if not ended(one))


def acknowledged(alarms: Alarms, session: str, who: str, at_us: int) -> Alarms:
    """Return the alarms with those of one session (empty: of streams) acknowledged, the first time only."""
    known = {"acknowledged_us": at_us, "acknowledged_by": who}
    return tuple(
        one.model_copy(update=known) if one.session == session and not one.acknowledged_us else one
        for one in alarms
    )


def noted(alarms: Alarms, told: Alarm) -> Alarms:
    """Return the alarms with this one in the audit chain."""
    same = (told.session, told.place, told.code)
    return tuple(
        one.model_copy(update={"noted": True}) if (one.session, one.place, one.code) == same else one
        for one in alarms
    )


def sounding(alarms: Alarms) -> int:
    """Return how many alarms nobody has acknowledged."""
    return sum(not one.acknowledged_us and not one.repairing for one in alarms)
