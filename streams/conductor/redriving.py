"""Drives chunks again: publishes their claims under the session's run."""

from collections.abc import Iterable, Mapping

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.events.chunk import Redriven
from schemas.events.headers import headers
from schemas.ports import Writer


async def redrive(jet: Writer, session: Session, indices: Iterable[int], recorded: Mapping[int, int]) -> None:
    """Publish the claims of these chunks. recorded: by index, the stream sequence of `recorded`.

    After a crash one may be published twice: a duplicate changes nothing.
    """
    for index in indices:
        event = Redriven(
            session=session.id, uid=session.uid, run=session.run, index=index, recorded=recorded[index]
        )
        await jet.publish(
            subjects.chunk(subjects.REDRIVEN, session.id),
            event.model_dump_json().encode(),
            headers=headers(event.type),
            msg_id=f"{session.uid.hex()}.{session.run}.redriven.{index}",
        )
