"""Owns what a replay concludes of one chunk: the manifest decides, the recording stream makes it again."""

from enum import Enum

from handlers.format.chunk import open_plain
from schemas.errors import EvidenceFalse
from schemas.format.digest import Buffer, h
from schemas.format.index import Entry


class Judgement(Enum):
    """Of one chunk."""

    SAME = "same"
    """The stored file is what was sealed, and was made again to the byte."""
    RESTORED = "restored"
    """The stored file was missing or damaged; what was made again is what was sealed, and replaces it."""
    CONTENT_EQUAL = "content_equal"
    """The stored file is what was sealed; another codec build makes other bytes of the same content."""
    CONTRADICTED = "contradicted"
    """The stored file is what was sealed, and the recording stream holds another content."""
    UNREPRODUCIBLE = "unreproducible"
    """The stored file is missing or damaged, and this build does not make what was sealed."""

    RELEASED = "released"
    """The stored file is what was sealed; its source went while the session ran, nothing makes it again."""
    IRREPARABLE = "irreparable"
    """The stored file is missing or damaged, and its source went while the session ran."""

    @property
    def good(self) -> bool:
        return self in (Judgement.SAME, Judgement.RESTORED, Judgement.CONTENT_EQUAL, Judgement.RELEASED)


def judge(entry: Entry, dek: bytes, made: Buffer | None, found: Buffer | None) -> Judgement:
    """Compare what was made again with what was sealed and with what is stored.

    entry: of the signed manifest. made, found: whole files; made None: its source is gone. Pure.
    """
    kept = found is not None and h(found) == entry.digest
    if made is None:
        return Judgement.RELEASED if kept else Judgement.IRREPARABLE
    reproduced = h(made) == entry.digest
    if found is None or not kept:
        return Judgement.RESTORED if reproduced else Judgement.UNREPRODUCIBLE
    if reproduced:
        return Judgement.SAME
    try:
        equal = h(open_plain(dek, found)) == h(open_plain(dek, made))
    except EvidenceFalse:
        equal = False
    return Judgement.CONTENT_EQUAL if equal else Judgement.CONTRADICTED
