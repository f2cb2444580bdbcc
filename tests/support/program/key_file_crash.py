"""One call on key files in a process that is killed before its n-th side effect; for tests.

python key_file_crash.py ROOT UID CALL CONTENT-FILE N      N = 0: it lives, and prints how many there were
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.keys.session_keys import DiskKeyFiles

EFFECTS = ("write", "fsync", "ftruncate", "link", "rename", "unlink", "mkdir", "setxattr", "removexattr")


def main(root: str, uid: str, call: str, content: str, at: str) -> None:
    done = 0

    def struck(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def effect(*args: Any, **more: Any) -> Any:
            nonlocal done
            if name != "open" or args[1] & os.O_CREAT:
                done += 1
                if done == int(at):
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return effect

    for name in (*EFFECTS, "open"):
        setattr(os, name, struck(name, getattr(os, name)))
    files, data = DiskKeyFiles(Path(root)), Path(content).read_bytes()
    if call == "make":
        files.make(bytes.fromhex(uid), data)
    elif call == "replace":
        files.replace(bytes.fromhex(uid), lambda old: data)
    else:
        files.erase(bytes.fromhex(uid))
    count = done
    sys.stdout.write(str(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
