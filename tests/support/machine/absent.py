"""What a test does when something that it needs is not on this machine."""

import os
from typing import NoReturn

import pytest

MAY_MOUNT = "run as root"


def absent(what: str, cure: str) -> NoReturn:
    """Skip the test that needs `what`; in CI, where everything must be there, fail."""
    message = f"{what} is not here; {cure}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
