"""The units of a fragmented MP4, on recordings made here by the bundled encoder."""

import random
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.format.mp4 import MAX_BOX_BYTES, BoxSplitter, Unit
from infra.capture.ffmpeg import encoder_arguments, ffmpeg
from schemas.ports.processes import Picture


def encode(target: Path, *arguments: str) -> bytes:
    source = ("-f", "lavfi", "-i", "testsrc2=s=320x240:r=10", "-t", "6")
    subprocess.run([ffmpeg(), "-v", "error", "-y", *source, *arguments, str(target)], check=True)
    return target.read_bytes()


@pytest.fixture(scope="module")
def fragmented(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    picture = Picture(frame_rate=10, key_frame_s=2.0)
    return encode(tmp_path_factory.mktemp("mp4") / "a.mp4", *encoder_arguments(picture))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return encode(tmp_path_factory.mktemp("mp4") / "b.mp4", "-c:v", "libx264", "-f", "mp4")


def split(data: bytes, steps: Iterator[int]) -> tuple[list[Unit], BoxSplitter]:
    splitter, units, at = BoxSplitter(), [], 0
    while at < len(data):
        step = next(steps)
        units += splitter.feed(data[at : at + step])
        at += step
    return units + splitter.finish(), splitter


def every(step: int) -> Iterator[int]:
    while True:
        yield step


@pytest.mark.parametrize("step", [1, 7, 8, 4096, 1 << 30])
def test_a_real_recording_is_cut_into_init_and_fragments(fragmented: bytes, step: int) -> None:
    """Breaks: chunks begin in the middle of a group of pictures, and a player shows nothing at first."""
    units, splitter = split(fragmented, every(step))
    assert not splitter.opaque
    assert b"".join(unit.data for unit in units) == fragmented
    init, *rest = units
    assert init.data[4:8] == b"ftyp"
    assert not init.key_frame
    assert all(unit.data[4:8] in (b"moof", b"mfra") for unit in rest)
    # key frames at 0, 2 and 4 s; a fragment begins at each second
    assert [unit.key_frame for unit in rest if unit.data[4:8] == b"moof"] == [True, False] * 3


def test_the_step_of_reading_changes_no_unit(fragmented: bytes) -> None:
    """Breaks: the same recording is cut differently on a slower host."""
    chance = random.Random(7)
    whole, _ = split(fragmented, every(1 << 30))
    odd, _ = split(fragmented, iter(lambda: chance.randint(1, 3000), 0))
    assert odd == whole


def test_fragments_that_come_at_once_are_joined_but_never_over_a_key_frame(fragmented: bytes) -> None:
    """Breaks: a fast upload costs a message for each second of film, or nobody can seek in it."""
    init, *alone = split(fragmented, every(1 << 30))[0]
    most = 2 * max(len(unit.data) for unit in alone)
    joining = BoxSplitter(most)
    joined = joining.feed(fragmented)
    assert not joining.opaque
    assert not joining.finish()
    assert b"".join(unit.data for unit in joined) == fragmented
    assert joined[0] == init
    assert [unit.key_frame for unit in joined[1:]] == [True] * 3
    assert all(len(unit.data) <= most for unit in joined)
    assert [unit.data[:8] for unit in joined if unit.key_frame] == [
        unit.data[:8] for unit in alone if unit.key_frame
    ]
    narrow = BoxSplitter(len(alone[0].data) + len(alone[1].data) - 1).feed(fragmented)
    assert len(narrow) > len(joined)


def test_what_comes_slowly_is_not_held_back_to_be_joined(fragmented: bytes) -> None:
    """Breaks: a live recording lags behind by a fragment."""
    begins = [at - 4 for at in range(len(fragmented)) if fragmented.startswith(b"moof", at)]
    splitter = BoxSplitter(1 << 30)
    given = [splitter.feed(fragmented[a:b]) for a, b in zip([0, *begins], [*begins, None], strict=True)]
    assert [len(units) for units in given] == [1] * len(given)


def test_another_container_is_passed_through_untouched(plain: bytes) -> None:
    """Breaks: a file that is no fragmented MP4 loses bytes, or fills memory."""
    for data in (plain, b"\x1aE\xdf\xa3" + bytes(5000), b"", b"ft", random.Random(1).randbytes(70_000)):
        units, splitter = split(data, every(1000))
        assert b"".join(unit.data for unit in units) == data
        assert not any(unit.key_frame for unit in units)
        assert splitter.opaque or len(data) < 8


def test_every_cut_or_damaged_recording_keeps_all_its_bytes(fragmented: bytes) -> None:
    """Breaks: one wrong byte from an encoder that crashes stops the recording, or bytes vanish."""
    chance = random.Random(3)
    for _ in range(300):
        damaged = bytearray(fragmented[: chance.randint(1, len(fragmented))])
        for _ in range(3):
            damaged[chance.randrange(min(len(damaged), 2500))] = chance.randrange(256)
        units, _ = split(bytes(damaged), every(chance.choice([100, 5000])))
        assert b"".join(unit.data for unit in units) == damaged


def test_a_box_that_claims_too_much_is_not_waited_for(fragmented: bytes) -> None:
    """Breaks: a lying length holds a whole session in memory."""
    end = fragmented.index(b"moof") - 4
    for size in (0, 7, MAX_BOX_BYTES + 1):
        splitter = BoxSplitter()
        splitter.feed(fragmented[:end])
        assert splitter.feed(size.to_bytes(4, "big") + b"moof") != []
        assert splitter.opaque
        assert splitter.feed(b"more") == [Unit(b"more")]


def test_what_waits_for_its_end_takes_little_more_than_its_bytes(fragmented: bytes) -> None:
    """Breaks: an encoder that writes in small pieces makes its recorder take ten times what it holds back."""
    splitter, step, size = BoxSplitter(), 7, 1 << 20
    splitter.feed(fragmented[: fragmented.index(b"moof") - 4] + size.to_bytes(4, "big") + b"moof")
    tracemalloc.start()
    for _ in range(size // step - 2):
        assert splitter.feed(bytes(step)) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not splitter.opaque
    assert held < 1.5 * size


@pytest.mark.parametrize("join_bytes", [0, 3000, 1 << 20])
def test_a_flush_at_any_place_changes_no_byte_and_puts_no_flag_where_nothing_begins(
    join_bytes: int, fragmented: bytes
) -> None:
    """Breaks: a slow source loses bytes, or its chunks begin in the midst of a picture."""
    films, chance = fragmented * 3, random.Random(join_bytes)
    begins = {n * len(fragmented) for n in (1, 2)}
    keys = set()
    whole, at = split(films, every(1 << 30))[0], 0
    for unit in whole:
        keys |= {at} if unit.key_frame else set()
        at += len(unit.data)
    assert len(keys) == 9
    seen_keys: set[int] = set()
    for _ in range(20):
        splitter, given, fed, at = BoxSplitter(join_bytes), [], 0, 0
        while fed < len(films):
            step = chance.choice([1, 5, 40, 3000, 20_000])
            given += splitter.feed(films[fed : fed + step])
            fed = min(fed + step, len(films))
            if chance.random() < 0.3:
                given += splitter.flush()
                assert fed - sum(len(unit.data) for unit in given) < 16, "more than half a header waits"
        given += splitter.finish()
        assert b"".join(unit.data for unit in given) == films
        assert not splitter.opaque
        for unit in given:
            assert not unit.key_frame or at in keys
            seen_keys |= {at} if unit.key_frame else set()
            assert unit.begins_film == (at in begins)
            at += len(unit.data)
    assert seen_keys == keys, "a flush hides a key frame only where its head is not there yet"


def test_a_picture_that_is_long_in_coming_is_not_held_back(fragmented: bytes) -> None:
    """Breaks: megabytes that were read wait in memory for the end of their box."""
    head = fragmented[: fragmented.index(b"mdat") - 4]
    size = 100 << 20
    splitter = BoxSplitter(10_000)
    units = splitter.feed(head + size.to_bytes(4, "big") + b"mdat")
    for _ in range(50):
        units += splitter.feed(bytes(3000))
    assert not splitter.opaque
    assert len(head) + 8 + 50 * 3000 - sum(len(unit.data) for unit in units) < 10_000
    assert [unit.key_frame for unit in units if unit.key_frame] == [True]
