"""Sessions written straight into the event log."""

from handlers.lifecycle.session import Session
from infra.jetstream import Jet
from schemas.events import commands
from streams.bench.finished import FinishedHost, finished_sessions
from streams.event_store.session_log import SessionLog


async def fill(jet: Jet, count: int, first: int = 0) -> None:
    for lines in finished_sessions(count, 3, first):
        for subject, body in lines:
            await jet.publish(subject, body)


async def begin(jet: Jet, name: str, host: str = "host-9999", *, start: bool = True) -> Session:
    """A session that is not finished."""
    made = FinishedHost(host)
    log = SessionLog(jet)
    session = await log.execute(made.create(name, 1))
    if start:
        session = await log.execute(order(commands.Start, name), session)
    return session


def order(kind: type[commands.Command], name: str, **more: object) -> commands.Command:
    said = {"session": name, "at_us": 2, "who": "tester", "cause": f"{kind.__name__}-{len(more)}"}
    return kind.model_validate({**said, **more})
