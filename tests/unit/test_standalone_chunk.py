"""One chunk through compress, encrypt and merkle, without a recording."""

import itertools

import pytest

from handlers.crypto.keys import SessionKeys
from handlers.format.chunk import open_plain
from handlers.format.merkle_tree import leaf
from handlers.stages.compress import compress
from handlers.stages.context import Context
from handlers.stages.encrypt import encrypt
from handlers.stages.merkle import merkle
from handlers.stages.standalone import place, process
from schemas.errors import Misuse, TooLarge
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import DEFAULT_LEVELS, INDEX_TRACK, MAX_PLAIN, Codec, Suite
from schemas.format.digest import h
from schemas.format.index import Entry
from tests.support.evidence.format_samples import DEK, UID, words
from tests.support.evidence.recorded_session import RecordedSession

KEYS = SessionKeys(DEK)
EVERY = pytest.mark.parametrize(("codec", "suite"), [*itertools.product(Codec, Suite)])


def settings(codec: Codec, suite: Suite) -> SessionSettings:
    return SessionSettings(suite=suite.value, codec=codec.value, level=DEFAULT_LEVELS[codec])


@EVERY
def test_a_chunk_without_a_session_becomes_the_bytes_of_the_pipeline(codec: Codec, suite: Suite) -> None:
    """Breaks: a chunk that is made again by the service is another chunk, and its leaf is in no tree."""
    recording = RecordedSession(fragments=6)
    for recorded in recording.recorded:
        plain = words(recorded.plain)
        context = Context(recorded, 9, settings(codec, suite), KEYS)
        encrypted, sealed = encrypt(*compress(0, plain, context), context)
        proven = merkle(encrypted, context)
        made = process(plain, recorded.uid, Entry.of(recorded), context.settings, KEYS)
        assert made.sealed == sealed
        assert (made.entry.pack(), made.leaf) == (proven.entry, proven.leaf)
        assert (made.codec, made.build) == (proven.codec, proven.build)


@EVERY
def test_a_processed_chunk_opens_to_its_plain_bytes(codec: Codec, suite: Suite) -> None:
    """Breaks: the service gives back bytes that nobody can open."""
    for plain in (b"", b"x", words(5000), words(1 << 20)):
        made = process(plain, UID, place(3, part=2, offset=77), settings(codec, suite), KEYS)
        assert open_plain(DEK, made.sealed) == plain
        assert made.plain_digest == h(plain)
        assert made.entry.digest == h(made.sealed)
        assert (made.entry.sealed, made.entry.plain) == (len(made.sealed), len(plain))
        assert made.leaf == leaf(made.entry.pack())
        assert len(made.sealed) == 128 + made.payload + 16


def test_a_chunk_that_does_not_shrink_is_stored_raw_and_says_so() -> None:
    """Breaks: a caller computes with a codec that was not used."""
    noise = b"".join(h(b"%d" % number) for number in range(40_000))
    made = process(noise, UID, place(), settings(Codec.ZSTD, Suite.AES_256_GCM), KEYS)
    assert (made.codec, made.build, made.payload) == (Codec.NONE, "none", len(noise))


def test_a_chunk_out_of_bounds_is_refused() -> None:
    """Breaks: a chunk is made that no reader accepts."""
    usual = settings(Codec.NONE, Suite.AES_256_GCM)
    with pytest.raises(TooLarge, match=r"chunk\.size"):
        process(bytes(MAX_PLAIN + 1), UID, place(), usual, KEYS)
    for wrong in (place(track=2), place(track=INDEX_TRACK)):
        with pytest.raises(Misuse, match=r"chunk\.place"):
            process(b"x", UID, wrong, usual, KEYS)
