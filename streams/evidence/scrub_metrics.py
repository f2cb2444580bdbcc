"""Shows the scrub in the measurements of its process: alarms, counts of the pass, age of the last pass."""

from typing import Any

from handlers.evidence.alarms import sounding
from schemas.ports.metrics import Meter
from streams.evidence.scrub_pace import ScrubPace
from streams.evidence.scrub_progress import ScrubProgress


def measure_scrub(meter: Meter, progress: ScrubProgress, pace: ScrubPace) -> None:
    """Show the alarms, the counts of the current pass, and the end of the last one."""

    def of_pass(name: str) -> Any:
        return lambda: float(getattr(progress.state.current, name))

    def alarms() -> float:
        return float(sounding(progress.state.alarms) + progress.state.alarms_more)

    def age_s() -> float:
        last = progress.state.last
        since_us = last.ended_us if last else progress.state.first_us
        return max(progress.clock_us() - since_us, 0) / 1e6 if since_us else 0.0

    text = "Places that are damaged now, and that nobody has acknowledged."
    meter.value("lucid_scrub_alarms", text, alarms)
    text = "Places that are damaged now, acknowledged or not."
    meter.value("lucid_scrub_damaged_places", text, lambda: float(len(progress.state.alarms)))
    text = "Time since the last whole pass ended; without one, since the first start of the scrub."
    meter.value("lucid_scrub_age_seconds", text, age_s)
    text = "Wait of the message that the scrub gives way to; 0: to none."
    meter.value("lucid_scrub_behind_seconds", text, lambda: pace.behind_s)
    meter.value("lucid_scrub_pass_bytes", "Bytes that this pass of the scrub has read.", of_pass("bytes"))
    meter.value("lucid_scrub_pass_files", "Stored files that this pass has checked.", of_pass("chunks"))
    text = "Messages of the streams beside the recordings that this pass has checked."
    meter.value("lucid_scrub_pass_messages", text, of_pass("messages"))
    meter.value("lucid_scrub_pass_repairs", "Files that this pass has restored.", of_pass("repaired"))
