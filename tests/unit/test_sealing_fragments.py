import pytest

from handlers.format import fragment as fr
from schemas.errors import EvidenceFalse, Misuse, Rejected
from schemas.format.fragment import (
    MAX_BYTES,
    MAX_DATA_PLAIN,
    EndBody,
    FinalBody,
    GapBody,
    Kind,
    ReasonBody,
    TrackTail,
    parse,
)
from tests.support.evidence.format_samples import (
    GENESIS,
    HOST_PUBLIC,
    KEYS,
    SETTINGS,
    SIGNER,
    SIGNER_PUBLIC,
    START_US,
    UID,
    sealer,
)


def test_a_track_is_one_chain_from_its_genesis_to_its_final() -> None:
    """Breaks: a missing fragment could not be seen."""
    host, events = sealer(), sealer(1)
    events.part(SETTINGS, START_US)
    whole = [
        host.part(SETTINGS, START_US),
        host.data(b"one", START_US + 1, key_frame=True),
        host.tick(START_US + 2),
        host.gap(START_US, START_US + 2, 5, "spool_full", START_US + 3),
        host.part(SETTINGS, START_US + 4),
        host.data(b"three", START_US + 5),
        host.pause("asked", START_US + 6),
        host.resume("asked", START_US + 7),
        host.final([events.tail()], START_US + 8),
    ]
    prev = GENESIS
    for seq, made in enumerate(map(parse, whole)):
        assert (made.header.seq, made.header.prev_head) == (seq, prev)
        assert fr.verify_fragment(HOST_PUBLIC, made)
        prev = made.head
    assert [parse(each).header.part for each in whole] == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert GapBody.parse(parse(whole[3]).body).frames == 5
    assert ReasonBody.parse(parse(whole[6]).body).reason == "asked"
    tails = FinalBody.parse(parse(whole[8]).body).tracks
    assert tails[0] == TrackTail(id=0, last_seq=7, head=parse(whole[7]).head, plain=8)
    assert tails[1] == events.tail()
    assert (host.state.next_seq, host.state.plain) == (9, 8)


def test_what_a_host_sealed_the_platform_opens() -> None:
    """Breaks: no recording could be opened."""
    host = sealer()
    key = KEYS.open_part_key(parse(host.part(SETTINGS, START_US)))
    for length in (0, 1, 1000, MAX_DATA_PLAIN):
        plain = bytes(length)
        whole = host.data(plain, START_US)
        made = parse(whole)
        assert fr.open_data(key, made) == plain
        buffer = bytearray(b"\1" * (length + 3))
        assert fr.open_data_into(key, made, memoryview(buffer)) == length
        assert buffer == plain + b"\1\1\1"
        assert fr.reseal_digest(key, made.header, plain) == made.body_digest
    assert len(whole) == MAX_BYTES
    with pytest.raises(Misuse):
        host.data(bytes(MAX_DATA_PLAIN + 1), START_US)


def test_a_changed_fragment_neither_verifies_nor_opens() -> None:
    """Breaks: recordings could be changed unseen."""
    host = sealer()
    key = KEYS.open_part_key(parse(host.part(SETTINGS, START_US)))
    whole = host.data(b"text", START_US)
    for at in (16, 40, 64, 96, 99, 100, len(whole) - 64, len(whole) - 1):
        bad = bytearray(whole)
        bad[at] ^= 1
        made = parse(bytes(bad))
        assert not fr.verify_fragment(HOST_PUBLIC, made)
        if at < len(whole) - 64:
            with pytest.raises(EvidenceFalse) as caught:
                fr.open_data(key, made)
            assert caught.value.code == "fragment.tag"
            with pytest.raises(EvidenceFalse):
                fr.open_data_into(key, made, memoryview(bytearray(4)))


def test_each_part_has_a_key_of_its_own() -> None:
    """Breaks: a nonce would meet one key twice when a host goes on after a crash."""
    host = sealer()
    first = KEYS.open_part_key(parse(host.part(SETTINGS, START_US)))
    second = KEYS.open_part_key(parse(host.part(SETTINGS, START_US)))
    assert first != second
    with pytest.raises(EvidenceFalse):
        fr.open_data(first, parse(host.data(b"text", START_US)))


def test_a_new_part_goes_on_in_the_same_chain() -> None:
    """Breaks: a host that begins a part would fork its own recording."""
    host = sealer()
    host.part(SETTINGS, START_US)
    last = parse(host.data(b"text", START_US))
    made = parse(host.part(SETTINGS, START_US))
    assert (made.header.seq, made.header.part, made.header.prev_head) == (2, 1, last.head)
    assert host.state.plain == 4


def test_a_track_that_does_not_begin_with_a_part_is_refused() -> None:
    """Breaks: a recording that nobody can open."""
    for begin in (lambda host: host.tick(START_US), lambda host: host.pause("asked", START_US)):
        host = sealer()
        with pytest.raises(Rejected):
            begin(host)
        assert host.state.next_seq == 0
    with pytest.raises(Misuse):
        sealer().tail()


def test_only_track_0_makes_a_final() -> None:
    """Breaks: a session would have two endings."""
    events = sealer(1)
    events.part(SETTINGS, START_US)
    with pytest.raises(Misuse):
        events.final([], START_US)


def test_an_end_is_the_installations_and_not_the_hosts() -> None:
    """Breaks: a host could pass its own ending off as the platform's, or the other way round."""
    host = sealer()
    host.part(SETTINGS, START_US)
    made = parse(fr.end_fragment(UID, "host_lost", "silent", [host.tail()], START_US, SIGNER))
    assert made.header.kind is Kind.END
    assert EndBody.parse(made.body) == EndBody(tracks=(host.tail(),), end="host_lost", reason="silent")
    assert fr.verify_fragment(SIGNER_PUBLIC, made)
    assert not fr.verify_fragment(HOST_PUBLIC, made)
    assert not fr.verify_signature(SIGNER_PUBLIC, made.head, made.signature, b"lucid v1 fragment\0")
