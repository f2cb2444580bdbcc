"""Tokens of sealed fields, and the key that makes them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.crypto.blind_index import PREFIX_MOST, BlindIndex
from infra.keys.folder import KeyFolder
from infra.keys.index_key import INDEX, IndexKeyFile
from infra.keys.master import Keyring
from schemas.errors import Unavailable
from schemas.events.details import Details

ONE, OTHER = BlindIndex(bytes(32)), BlindIndex(bytes(31) + b"\1")


@given(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=60), st.integers(3, PREFIX_MOST))
def test_a_word_is_found_by_itself_and_its_beginnings(word: str, length: int) -> None:
    """Breaks: a person who types a name, or the beginning of it, does not find the session."""
    made = set(ONE.tokens(Details(name=f"the {word} 7")))
    assert set(ONE.named(word)) <= made
    plain = word.encode("ascii", "ignore").decode()
    assert set(ONE.named(plain[:length].upper())) <= set(ONE.tokens(Details(name=plain)))


def test_a_store_without_the_key_cannot_test_a_guess() -> None:
    """Breaks: a thief of the database asks it which sessions belong to a person."""
    fields = Details(name="evening till", owner="ada", tags=("red",), project="shop", environment="test")
    assert not set(ONE.tokens(fields)) & set(OTHER.tokens(fields))
    assert (ONE.key_id == OTHER.key_id, ONE.cursor_key == OTHER.cursor_key) == (False, False)


def test_one_field_is_not_found_as_another() -> None:
    """Breaks: a search for the owner `red` shows the sessions with the tag `red`."""
    made = {ONE.owned_by("red"), ONE.tagged("red"), ONE.of_project("red"), ONE.in_environment("red")}
    assert len(made | set(ONE.named("red"))) == 5


def test_an_owner_is_compared_exactly_and_a_tag_without_case() -> None:
    """Breaks: a person sees the sessions of another whose name differs in one letter's case."""
    assert ONE.owned_by("Ada") != ONE.owned_by("ada")
    assert ONE.tagged("STRASSE") == ONE.tagged("straße")
    assert ONE.of_project("\N{ANGSTROM SIGN}") == ONE.of_project("å")


def test_the_longest_name_has_a_bounded_number_of_tokens() -> None:
    """Breaks: one session with a long name fills the index of all."""
    assert len(ONE.tokens(Details(name="a" * 200))) == PREFIX_MOST - 2 + 1
    assert len(ONE.tokens(Details(name="abc " * 50))) == 1
    assert len(ONE.named("a b c " * 40)) == 3


def test_the_index_key_is_made_once_and_outlives_the_master_key(tmp_path: Path) -> None:
    """Breaks: after a rotation, or in a second process, no session is found any more."""
    keyring = Keyring(tmp_path)
    keyring.begin()
    key = IndexKeyFile(tmp_path).read()
    keyring.add_version(above=1)
    assert IndexKeyFile(tmp_path).read() == key
    assert len(key) == 32


def test_the_index_key_is_in_copies_and_in_the_mirror(tmp_path: Path) -> None:
    """Breaks: a folder that was put back from its copy makes every list anew."""
    first, mirror = tmp_path / "keys", tmp_path / "mirror"
    key = IndexKeyFile(first, mirror).read()
    assert IndexKeyFile(mirror).read() == key
    assert dict(KeyFolder(first).files())[INDEX] == (mirror / INDEX).read_bytes()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"key": "00"}', b'{"key": 7}', b"[]"])
def test_a_damaged_index_key_is_named(tmp_path: Path, content: bytes) -> None:
    """Breaks: a damaged file is taken for a key, and every search finds nothing."""
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(Unavailable, match=r"keys\.damaged"):
        IndexKeyFile(tmp_path).read()
