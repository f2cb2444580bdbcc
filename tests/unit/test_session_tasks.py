"""One task for each session: what it keeps while it waits."""

import gc
import weakref

from schemas.errors import Unavailable
from streams.scheduling.session_tasks import SessionTasks
from tests.support.machine.waiting import until


class Material:
    """What a job works with: the events of all chunks, and a data key."""


async def test_a_session_that_waits_keeps_nothing_of_its_failed_run() -> None:
    """Breaks: in an outage the keys and the chunk lists of all waiting sessions stay in memory."""
    used: list[weakref.ref[Material]] = []

    async def job(_: str) -> None:
        material = Material()
        used.append(weakref.ref(material))
        try:
            raise OSError("no answer")
        except OSError as error:
            raise Unavailable("the store does not answer", code="blobs.io") from error

    tasks = SessionTasks(job)
    try:
        tasks.wake("demo-01")
        await until(lambda: tasks.trouble("demo-01") is not None)
        gc.collect()
        trouble = tasks.trouble("demo-01")
        assert trouble is not None
        assert str(trouble.error) == "the store does not answer [blobs.io]"
        assert used[0]() is None
    finally:
        await tasks.close()


async def test_a_bug_is_not_shown_as_the_outage_before_it() -> None:
    """Breaks: `sessions show` waits for a disk that works, and nobody reads the log."""
    runs = 0

    async def job(_: str) -> None:
        nonlocal runs
        runs += 1
        raise ZeroDivisionError if runs > 1 else Unavailable("the store does not answer", code="blobs.io")

    tasks = SessionTasks(job)
    try:
        tasks.wake("demo-01")
        await until(lambda: tasks.trouble("demo-01") is not None)
        await until(lambda: runs == 2)
        await until(lambda: tasks.trouble("demo-01") is None)
    finally:
        await tasks.close()
