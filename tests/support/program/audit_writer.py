"""A process that writes audit entries: NATS_URL, name, count of tasks, requests of each task.

It prints `asked <id>` when an `asked` is durable, and `closed` when all outcomes are.
"""

import asyncio
import sys

from infra.jetstream import connect
from streams.event_store.audit_log import AuditLog
from streams.scheduling.clock import now_us
from tests.support.evidence.audit_acts import person


async def main(url: str, name: str, tasks: int, requests: int) -> None:
    jet = await connect(url, name=name, timeout_s=30)
    audit = AuditLog(jet, now_us)

    async def work(number: int) -> None:
        for turn in range(requests):
            asked = await audit.asked(person(f"{name}-{number}"), "stop", f"s-{number}", request=str(turn))
            print(f"asked {asked.id}", flush=True)
            asked.outcome()

    await asyncio.gather(*(work(number) for number in range(tasks)))
    await audit.close()
    print("closed", flush=True)
    await jet.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
