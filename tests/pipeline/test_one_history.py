"""What docs/security.md says of names, counters and commands, each against a real system."""

import shutil
from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas.errors import RefusedByState
from tests.support.pipeline.conducted import system

ROOT = Path(__file__).parents[2]


async def test_a_name_is_used_once_in_one_history_and_again_in_a_restored_one(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: README promises more than holds, and who restores a backup is not told of two recordings of one
    name; or the two share a key."""
    async with system(server, tmp_path / "first", worker=False) as world:
        await world.start("before")
        shutil.copytree(world.data.path / "hosts", tmp_path / "backup")
        first = await world.start("desk-1")
        await world.ask("destroy", "desk-1", who="anybody")
        with pytest.raises(RefusedByState, match="desk-1"):
            await world.start("desk-1")
    # The host's folder and the log as they were before: another server stands for the older log.
    older = NatsServer(tmp_path / "older" / "nats", max_file=4 << 30)
    await older.start()
    try:
        shutil.copytree(tmp_path / "backup", tmp_path / "older" / "data" / "hosts")
        async with system(older, tmp_path / "older", worker=False) as world:
            again = await world.start("desk-1")
    finally:
        await older.stop()
    assert again.grant.uid == first.grant.uid, "one counter, one host key: the uid comes again"
    assert again.grant.intake_public != first.grant.intake_public
    assert again.grant.genesis != first.grant.genesis
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "in one history" in readme
    assert "Every command needs a token" in readme
