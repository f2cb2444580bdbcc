import pytest

from handlers.crypto import keys
from schemas.errors import EvidenceFalse, Misuse
from schemas.format.fragment import Kind, parse
from tests.support.evidence.format_samples import DEK, KEYS, PART_KEY, SETTINGS, START_US, sealer


def test_each_chunk_has_keys_of_its_own() -> None:
    """Breaks: disclosing one chunk would disclose another."""
    made = [keys.seal_keys(keys.chunk_secret(DEK, bytes(71) + bytes((n,)))) for n in range(3)]
    assert len({part for each in made for part in each}) == 9
    assert all(len(part) == 32 for each in made for part in each)


def test_a_part_key_opens_for_the_platform() -> None:
    """Breaks: no recording could be opened."""
    host = sealer()
    fragment = parse(host.part(SETTINGS, START_US))
    assert keys.SessionKeys(DEK).open_part_key(fragment) == host._part_key


def test_each_part_has_its_own_key_in_any_order() -> None:
    """Breaks: after a resize, chunks are opened with the key of the part before."""
    host, opened = sealer(), []
    parts = [(parse(host.part(SETTINGS, START_US)), host._part_key) for _ in range(3)]
    for n in (0, 0, 1, 0, 2, 2, 1):
        fragment, key = parts[n]
        assert KEYS.open_part_key(fragment) == key
        opened.append(key)
    assert len(set(opened)) == 3


def test_a_part_key_is_bound_to_its_fragment() -> None:
    """Breaks: a part could be put under another part's key."""
    text = SETTINGS.build()
    fragment = parse(sealer().part(SETTINGS, START_US))
    sealed = keys.seal_part_key(KEYS.intake_public, PART_KEY, fragment.raw_header, text)
    moved = parse(fragment.raw_header + fragment.body[: 2 + len(text)] + sealed + bytes(64))
    assert KEYS.open_part_key(moved) == PART_KEY
    later = bytearray(moved.whole)
    later[40] ^= 1
    with pytest.raises(EvidenceFalse) as caught:
        KEYS.open_part_key(parse(bytes(later)))
    assert caught.value.code == "fragment.part_key"
    with pytest.raises(EvidenceFalse):
        keys.SessionKeys(bytes(32)).open_part_key(moved)


def test_only_a_part_fragment_carries_a_key() -> None:
    """Breaks: a mistake in our own code would look like false evidence."""
    host = sealer()
    host.part(SETTINGS, START_US)
    tick = parse(host.tick(START_US))
    assert tick.header.kind is Kind.TICK
    with pytest.raises(Misuse):
        KEYS.open_part_key(tick)


@pytest.mark.parametrize("length", [1215, 1217])
def test_an_intake_key_of_another_length_is_refused(length: int) -> None:
    """Breaks: a host would seal to something that is no key."""
    with pytest.raises(Misuse):
        keys.seal_part_key(bytes(length), PART_KEY, bytes(96), b"{}")


def test_a_session_never_prints_its_key() -> None:
    """Breaks: keys would end in logs."""
    assert DEK.hex() not in repr(KEYS)
    assert repr(DEK) not in repr(KEYS)
