import random
import zlib
from concurrent.futures import ThreadPoolExecutor

import lz4.frame
import pytest
import zstandard

from handlers.format import compression as c
from schemas.errors import EvidenceFalse, Misuse
from schemas.format.chunk_header import DEFAULT_LEVELS, LEVELS, MAX_PLAIN, Codec, codec_seconds
from tests.support.evidence.format_samples import words

PACKING = pytest.mark.parametrize("codec", [k for k in Codec if k is not Codec.NONE])
TEXT = words(100_000)
NOISE = random.Random(1).randbytes(2 << 20)


def _packed(codec: Codec, plain: bytes = TEXT) -> bytes:
    made = c.compress(plain, codec, DEFAULT_LEVELS[codec], 0)
    assert made.codec is codec
    return bytes(made.payload)


@PACKING
def test_what_was_compressed_comes_back(codec: Codec) -> None:
    """Breaks: stored recordings."""
    for level in (LEVELS[codec][0], LEVELS[codec][-1], DEFAULT_LEVELS[codec]):
        made = c.compress(TEXT, codec, level, 0)
        assert (made.codec, made.build) == (codec, c.build(codec))
        assert len(made.payload) < len(TEXT)
        assert c.decompress(codec, made.payload, len(TEXT)) == TEXT


@PACKING
def test_compressing_twice_gives_the_same_bytes_in_any_thread(codec: Codec) -> None:
    """Breaks: a redelivery would change the Merkle root."""
    first = _packed(codec)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: _packed(codec), range(8))) == {first}


@pytest.mark.parametrize(("length", "raw"), [(1023, True), (1024, False), (1025, False)])
def test_what_is_below_the_threshold_is_stored_raw(length: int, raw: bool) -> None:
    """Breaks: the setting would do nothing."""
    made = c.compress(bytes(length), Codec.ZSTD, 3, 1024)
    assert (made.codec is Codec.NONE) == raw
    assert (made.build == "none") == raw


@PACKING
def test_what_does_not_shrink_is_stored_raw_without_a_copy(codec: Codec) -> None:
    """Breaks: a payload above its plain length is refused when the chunk is opened."""
    for noise in (NOISE, NOISE[:1000], b""):
        made = c.compress(noise, codec, DEFAULT_LEVELS[codec], 0)
        assert made.codec is Codec.NONE
        assert made.payload is noise


@pytest.mark.parametrize("length", [c.PROBE_FROM_BYTES - 1, c.PROBE_FROM_BYTES, c.PROBE_FROM_BYTES + 1])
def test_the_probe_sees_the_whole_and_not_only_the_beginning(length: int) -> None:
    """Breaks: a recording that begins with noise would never be compressed."""
    noise, text = NOISE[: length // 8], words(length - length // 8)
    assert c.compress(noise + text, Codec.ZSTD, 3, 0).codec is Codec.ZSTD
    assert c.compress(text + noise, Codec.ZSTD, 3, 0).codec is Codec.ZSTD


def test_codec_none_stores_what_it_is_given() -> None:
    """Breaks: the setting that turns compression off."""
    made = c.compress(TEXT, Codec.NONE, 3, 0)
    assert made.payload is TEXT
    assert c.decompress(Codec.NONE, TEXT, len(TEXT)) == TEXT


@PACKING
def test_a_level_outside_its_codec_is_refused(codec: Codec) -> None:
    """Breaks: a wrong setting would be found only when the first chunk is made."""
    for level in (LEVELS[codec][0] - 1, LEVELS[codec][-1] + 1):
        with pytest.raises(Misuse) as caught:
            c.compress(TEXT, codec, level, 0)
        assert caught.value.code == "compression.level"


def _false(codec: Codec, payload: bytes, length: int = len(TEXT)) -> None:
    with pytest.raises(EvidenceFalse) as caught:
        c.decompress(codec, payload, length)
    assert caught.value.code == "chunk.payload"


@pytest.mark.parametrize("codec", list(Codec))
def test_another_length_than_promised_is_refused(codec: Codec) -> None:
    """Breaks: offsets of everything behind it."""
    payload = TEXT if codec is Codec.NONE else _packed(codec)
    for length in (len(TEXT) - 1, len(TEXT) + 1, 0, MAX_PLAIN + 1):
        _false(codec, payload, length)


@PACKING
def test_bytes_after_the_end_are_refused(codec: Codec) -> None:
    """Breaks: bytes in a chunk that nobody reads."""
    payload = _packed(codec)
    _false(codec, payload + b"\0")
    _false(codec, payload + payload)
    _false(codec, payload + _packed(codec, bytes(2000)))


@PACKING
def test_a_cut_payload_is_refused(codec: Codec) -> None:
    """Breaks: half a chunk would pass as a whole one."""
    payload = _packed(codec)
    for length in (0, 1, 3, 4, 10, len(payload) // 2, len(payload) - 1):
        _false(codec, payload[:length])


@PACKING
def test_a_bomb_is_not_unpacked(codec: Codec) -> None:
    """Breaks: memory of whoever opens the chunk."""
    _false(codec, _packed(codec, bytes(MAX_PLAIN)), 1000)


def test_a_zstd_frame_that_hides_its_size_is_bounded() -> None:
    """Breaks: memory; or chunks of writers that stream."""
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    assert c.decompress(Codec.ZSTD, hidden, len(TEXT)) == TEXT
    _false(Codec.ZSTD, hidden, len(TEXT) - 1)
    _false(Codec.ZSTD, hidden, len(TEXT) + 1)


@pytest.mark.parametrize(("window_log", "taken"), [(24, True), (25, False)])
def test_a_zstd_window_above_16_mib_is_refused(window_log: int, taken: bool) -> None:
    """Breaks: memory of whoever opens the chunk."""
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=0)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    payload = stream.compress(TEXT) + stream.flush()
    if taken:
        assert c.decompress(Codec.ZSTD, payload, len(TEXT)) == TEXT
    else:
        _false(Codec.ZSTD, payload)


def test_a_zstd_dictionary_is_refused() -> None:
    """Breaks: a chunk that cannot be opened without another file."""
    samples = [words(2000 + n) for n in range(200)]
    trained = zstandard.train_dictionary(4096, samples)
    _false(Codec.ZSTD, zstandard.ZstdCompressor(dict_data=trained).compress(TEXT))


def test_a_frame_that_is_skipped_is_refused() -> None:
    """Breaks: bytes in a chunk that nobody reads."""
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    for codec in (Codec.ZSTD, Codec.LZ4):
        _false(codec, skipped + _packed(codec))
        _false(codec, skipped, 0)


def test_gzip_without_its_header_is_refused() -> None:
    """Breaks: another reader's gzip would not open what ours does."""
    _false(Codec.GZIP, zlib.compress(TEXT))
    assert lz4.frame.decompress(_packed(Codec.LZ4)) == TEXT
    assert _packed(Codec.GZIP)[4:8] == bytes(4)  # no time of making


def test_every_build_is_a_label() -> None:
    """Breaks: the manifest, which names it."""
    for codec in Codec:
        assert c.build(codec).replace("-", "").replace(".", "").replace("_", "").isalnum()


@pytest.mark.parametrize("codec", Codec)
def test_every_level_has_a_cost_and_a_higher_one_costs_no_less(codec: Codec) -> None:
    """Breaks: a level without a bound, or one that is refused although a dearer one is not."""
    costs = [codec_seconds(codec, level, 16 << 20) for level in LEVELS[codec]]
    assert costs == sorted(costs)
    assert codec_seconds(codec, DEFAULT_LEVELS[codec], MAX_PLAIN) < 2


def test_what_costs_more_than_the_platform_allows_is_refused_with_what_is_allowed() -> None:
    """Breaks: one host's codec takes the cores of all, or its owner is not told what to take instead."""
    with pytest.raises(Misuse) as refused:
        c.check_cost(Codec.BROTLI, 11, 16 << 20, 8)
    assert refused.value.code == "compression.cost"
    assert refused.value.message == "brotli 11 may take 32 s for a chunk of 16 MiB (allowed: 8 s)"
    assert refused.value.hint.startswith("take COMPRESSION_LEVEL up to 9 or CHUNK_SIZE_MB up to 4;")
    c.check_cost(Codec.BROTLI, 11, 4 << 20, 8)
    c.check_cost(Codec.BROTLI, 9, 16 << 20, 8)
    c.check_cost(Codec.BROTLI, 11, 16 << 20, 40)
    with pytest.raises(Misuse, match="level 22 is not allowed for brotli: 0 to 11"):
        c.check_cost(Codec.BROTLI, 22, 1 << 20, 8)
