"""Reads by sequence and subject without a consumer: direct gets, one or many.

1. A replica that lags behind the leader may answer a direct get. So only the leader is believed that a
   message is absent. `batch` returns the view of one replica; a caller that must know the end uses `last` or
   `read_all`.
2. A batch may stop early for many reasons: `more` says so, and the caller asks again from its position.
   The chain of `Nats-Last-Sequence` proves order and completeness.
3. Bytes in flight stay far below the server's 64 MiB: above that the server cuts the connection.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence

from nats.aio.msg import Msg

from infra.jetstream import decode, errors
from infra.jetstream.connection import REQUEST_TIMEOUT_S, Connection, status_of
from schemas.config.backoff import Backoff
from schemas.errors import LucidError, Unavailable
from schemas.ports.messages import Message

BATCH_BYTES = 8 << 20
BATCH_MESSAGES = 1024
SINGLES_AT_ONCE, RUNS_AT_ONCE, RUN_BYTES = 12, 3, 4 << 20
"""At most 12 single messages of 1 MiB and 3 runs of 4 MiB are under way for one caller."""
BUSY_TRIES, BUSY = 6, Backoff(0.05, 1.6)


async def get(conn: Connection, stream: str, seq: int) -> Message | None:
    """Return one message by sequence; None: it never was there, or was erased."""
    messages, _ = await _collect(conn, stream, {"seq": seq}, single=True)
    return messages[0] if messages else await _of_leader(conn, stream, {"seq": seq})


async def last(conn: Connection, stream: str, subject: str) -> Message | None:
    """Return the newest message of a subject as the leader knows it; None: there is none."""
    return await _of_leader(conn, stream, {"last_by_subj": subject})


async def batch(
    conn: Connection, stream: str, subject: str, from_seq: int, max_messages: int, max_bytes: int
) -> tuple[list[Message], bool]:
    """Return messages of a subject (wildcards allowed) from a sequence on, and whether more are there."""
    question = {
        "seq": max(from_seq, 1),
        "next_by_subj": subject,
        "batch": max_messages,
        "max_bytes": max_bytes,
    }
    return await _collect(conn, stream, question)


async def read_all(conn: Connection, stream: str, subject: str, from_seq: int) -> AsyncIterator[Message]:
    """Yield every message of a subject that the stream holds now, in order."""
    from_seq = max(from_seq, 1)
    while True:
        messages, more = await batch(conn, stream, subject, from_seq, BATCH_MESSAGES, BATCH_BYTES)
        if not more:
            after = messages[-1].seq + 1 if messages else from_seq
            left_out = await _of_leader(conn, stream, {"seq": after, "next_by_subj": subject})
            more = left_out is not None
            messages += [left_out] if left_out else []
        for message in messages:
            yield message
        if not more:
            return
        if messages:
            from_seq = messages[-1].seq + 1


async def lasts(conn: Connection, stream: str, subjects: Sequence[str], known_to: int) -> dict[str, Message]:
    """Return the newest message of each of at most BATCH_MESSAGES subjects; an absent one is left out.

    Raises Unavailable (stream.lags): the answering replica does not hold `known_to` yet.
    """
    found: dict[str, Message] = {}
    more = True
    while more:
        left = [subject for subject in subjects if subject not in found]
        ending: dict[str, str] = {}
        question: dict[str, object] = {"multi_last": left, "batch": len(left), "max_bytes": BATCH_BYTES}
        messages, more = await _collect(conn, stream, question, ending=ending)
        if messages and not more and int(ending.get("Nats-UpTo-Sequence", 0)) < known_to:
            raise Unavailable(f"{stream}: a replica lags behind {known_to}", code="stream.lags")
        found.update((message.subject, message) for message in messages)
        more = more and bool(messages)
    return found


async def get_many(conn: Connection, stream: str, seqs: Sequence[int]) -> dict[int, Message]:
    """Return messages by sequence; a missing one is left out. Runs of consecutive numbers go in one."""
    found: dict[int, Message] = {}
    singles, several = asyncio.Semaphore(SINGLES_AT_ONCE), asyncio.Semaphore(RUNS_AT_ONCE)

    async def read(first: int, count: int) -> None:
        async with singles if count == 1 else several:
            await _read_run(conn, stream, first, count, found)

    async def confirm(seq: int) -> None:
        async with singles:
            message = await _of_leader(conn, stream, {"seq": seq})
        if message is not None:
            found[seq] = message

    await _all(read(*run) for run in _runs(seqs))
    await _all(confirm(seq) for seq in set(seqs) - found.keys())
    return found


async def _all(calls: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _of_leader(conn: Connection, stream: str, question: dict[str, object]) -> Message | None:
    """Return one message as the leader knows it; None: there is none."""
    answer = await conn.request(f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps(question).encode())
    body = json.loads(answer.data)
    if "error" in body:
        if body["error"].get("err_code") == errors.MESSAGE_ABSENT:
            return None
        raise errors.from_answer(body["error"], f"{stream}: {question}")
    return decode.stored(body["message"])


def _runs(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Group sequences into (first, count) of consecutive numbers, none longer than one batch."""
    runs: list[tuple[int, int]] = []
    for seq in sorted(set(seqs)):
        first, count = runs[-1] if runs else (0, 0)
        if seq == first + count and 0 < count < BATCH_MESSAGES:
            runs[-1] = (first, count + 1)
        else:
            runs.append((seq, 1))
    return runs


async def _read_run(conn: Connection, stream: str, first: int, count: int, found: dict[int, Message]) -> None:
    """Add the present ones of `count` sequences from `first` on; a batch by sequence skips holes."""
    end = first + count
    if count == 1:
        messages, _ = await _collect(conn, stream, {"seq": first}, single=True)
        found.update((message.seq, message) for message in messages)
        return
    question: dict[str, object] = {"max_bytes": RUN_BYTES}
    more = True
    while more and first < end:
        question |= {"seq": first, "batch": end - first}
        messages, more = await _collect(conn, stream, question)
        found.update((message.seq, message) for message in messages if message.seq < end)
        if messages:
            first = messages[-1].seq + 1


async def _collect(
    conn: Connection,
    stream: str,
    question: dict[str, object],
    *,
    single: bool = False,
    ending: dict[str, str] | None = None,
) -> tuple[list[Message], bool]:
    """Ask; retry with growing pauses while the server is too busy."""
    for failures in range(1, BUSY_TRIES + 1):
        try:
            return await _ask(conn, stream, question, single, ending)
        except _BusyError:
            await asyncio.sleep(BUSY.delay_s(failures))
    raise Unavailable(f"{stream}: the server is too busy for a direct get", code="stream.busy")


async def _ask(
    conn: Connection,
    stream: str,
    question: dict[str, object],
    single: bool,
    ending: dict[str, str] | None,
) -> tuple[list[Message], bool]:
    """ending: receives the headers of the line that ends the batch."""
    messages: list[Message] = []
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    what = f"direct get from {stream}"

    def take(answer: Msg | LucidError) -> None:
        if done.done():
            return
        if isinstance(answer, LucidError):
            done.set_exception(answer)
            return
        # A stored message carries its sequence; a Status beside it is the publisher's own header.
        status = "" if "Nats-Sequence" in (answer.headers or {}) else status_of(answer)
        if status:
            if ending is not None:
                ending.update(answer.headers or {})
            _conclude(done, status, answer, what)
            return
        if not single and messages and _after(answer) != messages[-1].seq:
            done.set_result(True)
            return
        messages.append(decode.direct(answer))
        if single:
            done.set_result(False)

    token = conn.expect(take)
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            await conn.send(
                f"$JS.API.DIRECT.GET.{stream}", json.dumps(question).encode(), reply=conn.reply_to(token)
            )
            return messages, await done
    except TimeoutError:
        if messages:
            return messages, True
        raise errors.no_answer(what, REQUEST_TIMEOUT_S) from None
    finally:
        conn.forget(token)
        if done.done() and not done.cancelled():
            done.exception()


def _after(answer: Msg) -> int:
    """Return the sequence of the message before this one in its batch."""
    return int((answer.headers or {}).get("Nats-Last-Sequence", 0))


def _conclude(done: asyncio.Future[bool], status: str, answer: Msg, what: str) -> None:
    """End a batch by its status line; `more` is true if the server reports pending messages."""
    headers = answer.headers or {}
    if status == "204":
        done.set_result(int(headers.get("Nats-Num-Pending", 0)) > 0)
    elif status == "404":
        done.set_result(False)
    elif status == "429":
        done.set_exception(_BusyError())
    elif status == "503":
        done.set_exception(errors.no_responders(what))
    else:
        text = headers.get("Description", "no reason given")
        done.set_exception(errors.from_answer({"code": int(status), "description": text}, what))


class _BusyError(Exception):
    """The server answered 429."""
