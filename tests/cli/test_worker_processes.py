"""A system that divides its sessions between several workers, through the program."""

import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from schemas.subjects import partition
from tests.support.program.up_process import Lucid, end, met, up

SESSIONS = [next(name for n in range(99) if partition(name := f"w-{n}") % 3 == group) for group in range(3)]
"""One of each group of three."""
BODY = b"".join(b"%06d " % number * 5_000 for number in range(30))


def workers(process: "subprocess.Popen[str]") -> dict[str, int]:
    """Pids of the workers, by the words behind `serve worker`."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        words: list[str] = []
        with suppress(psutil.Error):  # it has just ended
            words = child.cmdline()
        if "serve" in words and "worker" in words:
            found[" ".join(words[words.index("worker") + 1 : words.index("--parent")])] = child.pid
    return found


def test_workers_share_the_sessions_and_their_number_may_change(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the sessions of some worker are never stored, or those under way when the number changes."""
    data = tmp_path / "data"
    process = up(lucid, data, WORKER_PROCESSES="3")
    before = workers(process)
    assert sorted(before) == [f"--group {group} --groups 3" for group in range(3)]
    recordings = [
        lucid.start(
            *("record", "--input", "-", "--session", session),
            data=data,
            stdin=subprocess.PIPE,
            CHUNK_SIZE_MB="0.25",
        )
        for session in SESSIONS
    ]
    for recording in recordings:
        recording.stdin.buffer.write(BODY[: len(BODY) // 3])
        recording.stdin.buffer.flush()
    met(lambda: all(lucid("sessions", "show", name, data=data).returncode == 0 for name in SESSIONS))
    psutil.Process(before["--group 1 --groups 3"]).send_signal(signal.SIGKILL)
    met(lambda: len(after := workers(process)) == 3 and after != before)
    for recording in recordings:
        recording.stdin.buffer.write(BODY[len(BODY) // 3 : -len(BODY) // 3])
        recording.stdin.buffer.flush()
    assert end(process) == 0
    process = up(lucid, data, WORKER_PROCESSES="2")
    assert sorted(workers(process)) == [f"--group {group} --groups 2" for group in range(2)]
    for recording, session in zip(recordings, SESSIONS, strict=True):
        out, said = recording.communicate(BODY[-len(BODY) // 3 :].decode())
        assert recording.returncode == 0, out + said
        assert lucid("verify", session, "--open", "--strict", data=data).returncode == 0
        assert lucid("export", session, "--out", str(tmp_path / session), data=data).returncode == 0
        assert (tmp_path / session).read_bytes() == BODY
    assert end(process) == 0
