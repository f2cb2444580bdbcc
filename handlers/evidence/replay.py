"""Judges one replayed chunk: compares the file made again with the sealed entry and the stored file."""

from enum import Enum

from handlers.format.chunk import open_plain
from schemas.errors import EvidenceFalse
from schemas.format.digest import Buffer, h
from schemas.format.index import Entry


class Judgement(Enum):
    """The result for one chunk."""

    SAME = "same"
    """The stored file is the sealed one, and was made again to the byte."""
    RESTORED = "restored"
    """The stored file was missing or damaged; the file made again is the sealed one and replaces it."""
    CONTENT_EQUAL = "content_equal"
    """The stored file is the sealed one; another codec build makes other bytes of the same content."""
    CONTRADICTED = "contradicted"
    """The stored file is the sealed one, and the recording stream holds another content."""
    UNREPRODUCIBLE = "unreproducible"
    """The stored file is missing or damaged, and this build does not make the sealed bytes."""
    RELEASED = "released"
    """The stored file is the sealed one; its source was released, so nothing makes it again."""
    IRREPARABLE = "irreparable"
    """The stored file is missing or damaged, and its source was released."""

    @property
    def good(self) -> bool:
        return self in (Judgement.SAME, Judgement.RESTORED, Judgement.CONTENT_EQUAL, Judgement.RELEASED)


def judge(entry: Entry, dek: bytes, made: Buffer | None, found: Buffer | None) -> Judgement:
    """Compare the file made again with the sealed entry and the stored file. Pure.

    entry: of the signed manifest. made, found: whole files; made None: its source was released.
    """
    is_sealed = found is not None and h(found) == entry.digest
    if made is None:
        return Judgement.RELEASED if is_sealed else Judgement.IRREPARABLE
    reproduced = h(made) == entry.digest
    if found is None or not is_sealed:
        return Judgement.RESTORED if reproduced else Judgement.UNREPRODUCIBLE
    if reproduced:
        return Judgement.SAME
    try:
        equal = h(open_plain(dek, found)) == h(open_plain(dek, made))
    except EvidenceFalse:
        equal = False
    return Judgement.CONTENT_EQUAL if equal else Judgement.CONTRADICTED
