from dataclasses import replace

import pytest

from handlers.crypto.keys import chunk_secret
from handlers.format import chunk
from handlers.format.compression import compress
from schemas.errors import EvidenceFalse
from schemas.format.chunk_header import INDEX_TRACK, MAX_PLAIN, Codec, Suite
from tests.support.evidence.format_samples import DEK, UID, words

PLAIN = words(5000)
PAYLOAD = compress(PLAIN, Codec.ZSTD, 3, 0).payload
FIELDS = chunk.ChunkFields(UID, 3, 0, 1, 4000, Codec.ZSTD, len(PLAIN))
SUITES = pytest.mark.parametrize("suite", list(Suite))


@SUITES
def test_what_was_sealed_opens(suite: Suite) -> None:
    """Breaks: stored recordings."""
    sealed = chunk.seal_chunk(suite, DEK, FIELDS, PAYLOAD)
    assert len(sealed) == 128 + len(PAYLOAD) + 16
    header, payload = chunk.open_chunk(DEK, sealed)
    assert payload == PAYLOAD
    assert (header.uid, header.index, header.track, header.part) == (UID, 3, 0, 1)
    assert (header.offset, header.plain, header.codec, header.suite) == (4000, 5000, Codec.ZSTD, suite)
    assert chunk.open_plain(DEK, sealed) == PLAIN
    assert chunk.open_with_secret(chunk_secret(DEK, bytes(sealed[:72])), bytes(sealed)).payload == PAYLOAD


@SUITES
def test_sealing_twice_gives_the_same_bytes(suite: Suite) -> None:
    """Breaks: a redelivery would change the Merkle root."""
    first = chunk.seal_chunk(suite, DEK, FIELDS, PAYLOAD)
    assert first == chunk.seal_chunk(suite, DEK, FIELDS, memoryview(PAYLOAD))
    assert first == chunk.seal_chunk(Suite(int(suite)), DEK, FIELDS, bytearray(PAYLOAD))


@SUITES
def test_a_plain_number_for_a_suite_is_taken_for_the_suite(suite: Suite) -> None:
    """Breaks: settings hold numbers; a chunk would be sealed under one suite and say another."""
    assert chunk.seal_chunk(int(suite), DEK, FIELDS, PAYLOAD) == chunk.seal_chunk(  # type: ignore[arg-type]
        suite, DEK, FIELDS, PAYLOAD
    )


@SUITES
def test_another_payload_never_meets_the_same_nonce(suite: Suite) -> None:
    """Breaks: two payloads of one chunk would give away their difference."""
    other = bytes((PAYLOAD[0] ^ 1,)) + bytes(PAYLOAD[1:])
    nonces = {bytes(chunk.seal_chunk(suite, DEK, FIELDS, p)[72:96]) for p in (PAYLOAD, other)}
    assert len(nonces) == 2
    if suite is Suite.AES_256_GCM:
        assert all(nonce[12:] == bytes(12) for nonce in nonces)


@SUITES
def test_each_header_byte_is_bound(suite: Suite) -> None:
    """Breaks: a chunk could be passed off as another."""
    sealed = chunk.seal_chunk(suite, DEK, FIELDS, PAYLOAD)
    for at in range(128):
        bad = bytearray(sealed)
        bad[at] ^= 1
        with pytest.raises(EvidenceFalse) as caught:
            chunk.open_chunk(DEK, bad)
        assert caught.value.code in {"chunk.header", "chunk.length", "chunk.commitment", "chunk.tag"}


@SUITES
def test_each_ciphertext_byte_is_bound(suite: Suite) -> None:
    """Breaks: a recording could be changed unseen."""
    sealed = chunk.seal_chunk(suite, DEK, FIELDS, PAYLOAD)
    for at in [*range(128, len(sealed), 7), len(sealed) - 1]:
        bad = bytearray(sealed)
        bad[at] ^= 0x80
        with pytest.raises(EvidenceFalse) as caught:
            chunk.open_chunk(DEK, bad)
        assert caught.value.code == "chunk.tag"


@SUITES
def test_another_key_shows_at_the_commitment(suite: Suite) -> None:
    """Breaks: one file could open to two recordings under two keys."""
    sealed = chunk.seal_chunk(suite, DEK, FIELDS, PAYLOAD)
    with pytest.raises(EvidenceFalse) as caught:
        chunk.open_chunk(bytes(32), sealed)
    assert caught.value.code == "chunk.commitment"
    with pytest.raises(EvidenceFalse) as caught:
        chunk.open_with_secret(bytes(32), sealed)
    assert caught.value.code == "chunk.commitment"


def test_a_nonce_chosen_by_a_key_holder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: who holds the key could seal two payloads under one nonce."""
    with monkeypatch.context() as patched:
        patched.setattr(chunk, "chunk_nonce", lambda *_: bytes(24))
        sealed = chunk.seal_chunk(Suite.XCHACHA20_POLY1305, DEK, FIELDS, PAYLOAD)
    with pytest.raises(EvidenceFalse) as caught:
        chunk.open_chunk(DEK, sealed)
    assert caught.value.code == "chunk.nonce"


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_is_refused(change: int) -> None:
    """Breaks: bytes behind a chunk that nobody reads."""
    sealed = bytes(chunk.seal_chunk(Suite.AES_256_GCM, DEK, FIELDS, PAYLOAD))
    with pytest.raises(EvidenceFalse) as caught:
        chunk.open_chunk(DEK, sealed[:change] if change < 0 else sealed + b"\0")
    assert caught.value.code == "chunk.length"


@pytest.mark.parametrize("length", [0, 127])
def test_a_file_shorter_than_a_header_is_refused(length: int) -> None:
    """Breaks: a cut file would be read past its end."""
    with pytest.raises(EvidenceFalse):
        chunk.open_chunk(DEK, bytes(length))


@SUITES
@pytest.mark.parametrize("length", [0, 1, MAX_PLAIN])
def test_the_smallest_and_the_largest_chunk_are_sealed(suite: Suite, length: int) -> None:
    """Breaks: a session that ends without a picture, or the greatest chunk size."""
    plain = bytes(length)
    fields = chunk.ChunkFields(UID, 0, INDEX_TRACK, 0, 0, Codec.NONE, length)
    assert chunk.open_plain(DEK, chunk.seal_chunk(suite, DEK, fields, plain)) == plain


def test_a_payload_above_its_plain_length_is_a_mistake() -> None:
    """Breaks: a chunk would be sealed that nobody may open."""
    with pytest.raises(ValueError, match="payload"):
        chunk.seal_chunk(Suite.AES_256_GCM, DEK, replace(FIELDS, plain=len(PAYLOAD) - 1), PAYLOAD)
    with pytest.raises(ValueError, match="payload"):
        chunk.seal_chunk(Suite.AES_256_GCM, DEK, replace(FIELDS, plain=MAX_PLAIN + 1), PAYLOAD)
