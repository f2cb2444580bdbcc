"""The personal fields of a session: sealed under its key, bound to session and revision, padded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from handlers.crypto import details
from handlers.crypto.details import BLOB_MOST, BLOCK_BYTES, open_details, seal_details
from schemas.errors import EvidenceFalse
from schemas.events.details import Details, RdpConfig
from tests.support.evidence.format_samples import DEK, DETAILS, UID

LINE = st.text(st.characters(exclude_categories=("C", "Z")), max_size=40)
TAG = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=64)
RDP = st.builds(RdpConfig, port=st.integers(1, 65_535), username=LINE, domain=LINE, use_tls=st.booleans())
ANY = st.builds(
    Details,
    name=LINE,
    owner=LINE,
    description=LINE,
    project=LINE,
    tags=st.lists(TAG, max_size=10).map(tuple),
    rdp_config=st.none() | RDP,
    priority=st.sampled_from(["low", "normal", "high", "critical"]),
)
REVISION = st.integers(1, 2**53 - 1)


@given(ANY, REVISION)
def test_fields_come_back_as_they_were_sealed(fields: Details, revision: int) -> None:
    """Breaks: a session loses its name, or gets another's."""
    blob = seal_details(DEK, UID, revision, fields)
    assert open_details(DEK, UID, revision, blob) == fields
    assert seal_details(DEK, UID, revision, fields) == blob


@pytest.mark.parametrize(
    ("dek", "uid", "revision"), [(bytes(32), UID, 3), (DEK, bytes(16), 3), (DEK, UID, 2)]
)
def test_a_blob_opens_as_one_revision_of_one_session(dek: bytes, uid: bytes, revision: int) -> None:
    """Breaks: who can write to a store shows old fields as new ones, or those of another session."""
    blob = seal_details(DEK, UID, 3, DETAILS)
    with pytest.raises(EvidenceFalse, match=r"details\.tag"):
        open_details(dek, uid, revision, blob)


@given(st.data())
def test_no_changed_blob_opens(data: st.DataObject) -> None:
    """Breaks: a flipped bit, or a cut tail, is taken for a session's owner."""
    blob = bytearray(seal_details(DEK, UID, 3, DETAILS))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del blob[data.draw(st.integers(0, len(blob) - 1)) :]
    with pytest.raises(EvidenceFalse, match=r"details\.(form|tag)"):
        open_details(DEK, UID, 3, bytes(blob))


def test_a_password_is_no_details_and_details_are_no_password() -> None:
    """Breaks: an answer that shows the details shows the password."""
    password = details.seal_password(DEK, UID, 3, "{}")
    with pytest.raises(EvidenceFalse, match=r"details\.form"):
        open_details(DEK, UID, 3, password)
    with pytest.raises(EvidenceFalse, match=r"details\.tag"):
        open_details(DEK, UID, 3, bytes((1, 1)) + password[2:])


def test_a_length_tells_blocks_and_no_letters() -> None:
    """Breaks: whose session it is shows in the length of the sealed fields."""
    short, long = (len(seal_details(DEK, UID, 1, Details(owner=owner))) for owner in ("a", "a" * 200))
    assert short == long == 42 + BLOCK_BYTES


def test_the_longest_allowed_fields_can_be_sealed() -> None:
    """Breaks: fields that were accepted one by one cannot be stored together."""
    wide = "\U0001f600"
    rdp = RdpConfig(host="a" * 253, port=65_535, username=wide * 200, domain=wide * 200, use_tls=False)
    most = Details(
        name=wide * 200,
        description='"' * 2 + wide * 1_998,
        owner=wide * 200,
        rdp_config=rdp,
        project=wide * 200,
        environment=wide * 200,
        tags=(wide * 64,) * 10,
        priority="critical",
    )
    blob = seal_details(DEK, UID, 1, most)
    assert len(blob) <= BLOB_MOST
    assert open_details(DEK, UID, 1, blob) == most


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a" * 201},
        {"name": "two\nlines"},
        {"owner": "a\x00b"},
        {"tags": ["a"] * 11},
        {"tags": [""]},
        {"priority": "extreme"},
        {"rdp_config": {"port": 0}},
        {"rdp_config": {"host": "a b"}},
        {"description": "\x1b[31m"},
    ],
)
def test_fields_beyond_their_bounds_are_refused(wrong: dict[str, object]) -> None:
    """Breaks: one client fills the log, or writes control characters to every terminal."""
    with pytest.raises(ValidationError):
        Details.model_validate(wrong)


def test_a_reader_ignores_the_members_of_a_newer_writer() -> None:
    """Breaks: after an update, the older of two processes can read no session's name."""
    assert Details.model_validate({"owner": "ada", "mood": "calm"}) == Details(owner="ada")


@pytest.mark.parametrize("text", [b'{"name":"a","name":"b"}', b'{ "name":"a"}', b'{"owner":"b","name":"a"}'])
def test_fields_that_are_not_canonical_are_refused(text: bytes) -> None:
    """Breaks: a key holder seals a text that two readers read as two names."""
    blob = details._seal(details.BlobKind.DETAILS, DEK, UID, 1, text)
    with pytest.raises(EvidenceFalse) as caught:
        open_details(DEK, UID, 1, blob)
    assert caught.value.code == "details.content"
