"""Slots that hosts share."""

import asyncio

from streams.scheduling.fair_slots import FairSlots


class Jobs:
    """Jobs of hosts that run until they are told to end; the order in which they began."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots, self.began, self.ends = slots, list[str](), dict[str, asyncio.Event]()
        self.tasks = dict[str, asyncio.Task[None]]()

    async def ask(self, *names: str) -> None:
        """A job is named for its host: its first letter."""
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._do(name))
        await settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await settle()

    async def _do(self, name: str) -> None:
        async with self.slots.turn(name[0]):
            self.began.append(name)
            await self.ends[name].wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_host_waits_for_one_job_of_each_other_host_and_no_more() -> None:
    """Breaks: who asks for a thousand things is served a thousand times before anybody else."""
    jobs = Jobs(FairSlots(1))
    await jobs.ask("a1", "a2", "a3", "a4", "b1", "c1", "b2")
    for name in ("a1", "a2", "b1", "c1", "a3", "b2"):
        await jobs.end(name)
    assert jobs.began == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    await jobs.end("a4")


async def test_a_host_whose_jobs_never_end_leaves_slots_to_others() -> None:
    """Breaks: one host's slow sessions hold every slot, and nobody else is served."""
    jobs = Jobs(FairSlots(3, share=2))
    await jobs.ask("a1", "a2", "a3", "b1", "b2", "c1")
    assert jobs.began == ["a1", "a2", "b1"]
    await jobs.end("b1")
    assert jobs.began == ["a1", "a2", "b1", "b2"]
    await jobs.end("b2")
    await jobs.end("c1")
    assert jobs.began == ["a1", "a2", "b1", "b2", "c1"]
    for name in ("a1", "a2", "a3"):
        await jobs.end(name)


async def test_a_job_that_is_cancelled_while_it_waits_takes_no_slot() -> None:
    """Breaks: each cancelled job costs a slot for ever, until none is left."""
    jobs = Jobs(FairSlots(1))
    await jobs.ask("a1", "b1", "c1")
    jobs.tasks["b1"].cancel()
    await settle()
    await jobs.end("a1")
    assert jobs.began == ["a1", "c1"]
    await jobs.ask("b2")
    jobs.ends["c1"].set()
    await asyncio.sleep(0)  # c1 has ended, b2 was given its slot and has not begun
    jobs.tasks["b2"].cancel()
    await settle()
    await jobs.ask("a2")
    assert jobs.began[-1] == "a2"
    await jobs.end("a2")
    assert (jobs.slots.used, jobs.slots.waiting) == (0, 0)
    assert not jobs.slots._held
