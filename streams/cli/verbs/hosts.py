"""The verb `lucid hosts`: lists the hosts that may record here, and their keys."""

from schemas.format.digest import h
from streams.cli import attach, output
from streams.cli.groups import group
from streams.cli.output import JsonFlag
from streams.evidence.trust import registered_hosts

hosts = group()


@hosts.callback()
def _group() -> None:
    """The hosts with a registered evidence key."""


@hosts.command("list")
def list_hosts(as_json: JsonFlag = False) -> None:
    """Every host, with the fingerprint of its evidence key."""

    async def work() -> dict[str, bytes]:
        async with attach.attached() as jet:
            return await registered_hosts(jet)

    found = sorted(attach.run(work()).items())
    width = max((len(host) for host, _ in found), default=0)
    listed = [{"host": host, "key": key.hex(), "fingerprint": h(key).hex()} for host, key in found]
    lines = (f"{host:<{width}}  {output.digits(h(key))}" for host, key in found)
    output.print_result({"hosts": listed}, lines, as_json)
    if not found and not as_json:
        output.note("lucid: no hosts; a host is registered when it first records")
