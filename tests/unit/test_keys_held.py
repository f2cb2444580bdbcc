"""Which keys/ folder belongs to a log, and which is refused."""

from dataclasses import replace
from typing import Any

import pytest

from handlers.crypto.key_folder import KeysHeld, copy_wanted, lost_version, require_belonging, to_note
from schemas.errors import Denied
from schemas.events.installation import KeysCopied, KeysNoted

MASTERS = {1: b"1" * 16, 2: b"2" * 16}
HELD = KeysHeld("/data/keys", b"i" * 16, True, False, False, MASTERS, (b"s" * 32, b"t" * 32), b"r" * 32)
EMPTY = KeysHeld("/data/keys", b"", False, False, False, {}, (), b"")


def noted(held: KeysHeld = HELD) -> KeysNoted:
    said = to_note(held, None, 1_772_615_564_000_000)
    assert said is not None
    return said


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"installation": b"", "masters": {}, "signers": ()}, "keys.missing", "missing or empty"),
        ({"installation": b""}, "keys.missing", "no new keys are made"),
        ({"installation": b"j" * 16}, "keys.foreign", "another installation"),
        ({"masters": {1: b"1" * 16}}, "keys.older", "lacks master key version 2"),
        ({"masters": {2: b"2" * 16}}, "keys.older", "lacks master key version 1"),
        ({"masters": {1: b"1" * 16, 2: b"3" * 16}}, "keys.foreign", "version 2 in /data/keys differs"),
        ({"signers": (b"s" * 32,)}, "keys.older", "lacks signer 7474 7474"),
    ],
)
def test_a_folder_that_lacks_what_the_log_knows_is_refused(
    change: dict[str, Any], code: str, said: str
) -> None:
    """Breaks: new keys are made beside an old log, and what they seal is lost when the folder returns."""
    with pytest.raises(Denied, match=said) as refused:
        require_belonging(replace(HELD, **change), noted(), sessions=True)
    assert refused.value.code == code
    assert "/data/keys" in refused.value.message
    assert refused.value.hint
    if code == "keys.older":
        assert "made after 2026-03-04 09:12:44 UTC" in refused.value.hint, "which copy is needed"


def test_a_folder_that_a_person_called_the_newest_may_lack_keys_but_have_no_other() -> None:
    """Breaks: the only copy is older than a rotation, and with it everything is refused for ever."""
    lacking = replace(HELD, is_newest=True, masters={1: b"1" * 16}, signers=(b"s" * 32,))
    require_belonging(lacking, noted(), sessions=True)
    assert (lost_version(lacking, noted()), lost_version(HELD, noted())) == (2, 0)
    with pytest.raises(Denied, match=r"keys\.foreign"):
        require_belonging(replace(lacking, masters={2: b"x" * 16}), noted(), sessions=True)


def test_a_folder_whose_log_is_gone_is_refused() -> None:
    """Breaks: a second log is begun with the keys of the first, and names and counters are used twice."""
    with pytest.raises(Denied, match=r"keys\.log_missing"):
        require_belonging(HELD, None, sessions=False)


def test_a_log_with_sessions_gets_no_first_keys() -> None:
    """Breaks: sessions of an installation that noted no keys yet are lost behind new ones."""
    with pytest.raises(Denied, match=r"keys\.missing"):
        require_belonging(EMPTY, None, sessions=True)


def test_what_a_crash_or_a_person_may_leave_goes_on() -> None:
    """Breaks: a power failure at the first start, after a rotation, or a root kept offline, ends all."""
    for held in (EMPTY, replace(EMPTY, installation=b"i" * 16), replace(HELD, joined=False)):
        require_belonging(held, None, sessions=False)
    require_belonging(replace(HELD, joined=False), noted(), sessions=True)
    require_belonging(replace(HELD, root=b""), noted(), sessions=True)
    require_belonging(HELD, noted(replace(HELD, masters={1: b"1" * 16}, signers=(b"s" * 32,))), sessions=True)


def test_the_log_notes_only_what_is_new() -> None:
    """Breaks: a rotation is unknown to the log, or every start makes it longer."""
    assert to_note(HELD, noted(), 5) is None
    assert to_note(replace(HELD, root=b""), noted(), 5) is None, "a root that is offline is not forgotten"
    rotated = to_note(replace(HELD, masters={**MASTERS, 3: b"3" * 16}), noted(), 5)
    assert rotated is not None
    assert [master.version for master in rotated.masters] == [1, 2, 3]


def test_a_copy_is_asked_for_when_it_is_old_or_lacks_a_key_or_is_none() -> None:
    """Breaks: a disk fails, and the copy that opens everything was never made."""
    day_us, log = 86_400_000_000, noted()
    now_us = log.at_us + 30 * day_us

    def asked(made_us: int, until_us: int = now_us + 1) -> str:
        return copy_wanted(
            log, [KeysCopied(label="one", made_us=made_us, until_us=until_us)], now_us, 7 * 86_400
        )

    assert "there is no copy" in copy_wanted(log, [], now_us, 7 * 86_400)
    assert "there is no copy" in asked(now_us, until_us=now_us), "its end has come"
    assert "lacks keys" in asked(log.at_us - 1)
    assert "8 days old" in asked(now_us - 8 * day_us)
    assert asked(now_us - 6 * day_us) == ""


def test_nothing_uses_a_folder_that_is_being_restored() -> None:
    """Breaks: half of a copy serves."""
    for log in (None, noted()):
        with pytest.raises(Denied, match=r"keys\.restoring"):
            require_belonging(replace(HELD, restoring=True), log, sessions=False)
