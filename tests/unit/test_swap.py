"""Which swap space is plain."""

from pathlib import Path

from infra.processes.swap import plain_swap

HEAD = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def test_swap_in_the_clear_is_named_and_no_other(tmp_path: Path) -> None:
    """Breaks: keys lie on a disk in the clear, and the doctor says nothing; or it warns of memory."""
    swaps, blocks = tmp_path / "swaps", tmp_path / "block"
    for device, uuid in (("dm-0", "CRYPT-LUKS2-0-swap"), ("dm-1", "LVM-swap")):
        (blocks / device / "dm").mkdir(parents=True)
        (blocks / device / "dm" / "uuid").write_text(uuid)
    swaps.write_text(
        HEAD
        + "".join(f"{name} partition 1 0 -2\n" for name in ("/dev/zram0", "/dev/dm-0", "/dev/dm-1", "/swap"))
    )
    assert plain_swap(swaps, blocks) == ["/dev/dm-1", "/swap"]
    assert plain_swap(tmp_path / "absent", blocks) == []
