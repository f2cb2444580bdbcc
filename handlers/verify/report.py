"""Holds the result of a verification: findings, notes, report, exit code (format.md §13).

1. A code is stable and has one meaning. `FINDINGS` and `NOTES` hold all codes; a test proves that.
2. A finding means that the evidence is false. A note names a fact that an honest recording may also show.
3. With `strict` every note is a finding.
4. A signer or host that the trust file does not list is neither: it is exit code 9, and the word "true" does
   not appear with it.
5. This module decides nothing; the checks beside it do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from schemas.errors import EXIT_OK, EXIT_SIGNER_UNKNOWN, OUTCOMES, EvidenceFalse
from schemas.ports.evidence import printable

MOST = 1000
"""Findings, and notes, that a report lists: hostile evidence has one for each of its bytes."""
EXIT_FALSE = OUTCOMES[EvidenceFalse].exit_code

FINDINGS: dict[str, str] = {
    "verify.internal": "a part of the verification broke off: no evidence may do that",
    "manifest.missing": "a manifest of an earlier seal, or the only one, is not there",
    "manifest.unnamed": "a file in manifests/ is named like a manifest, and the layout names none so",
    "manifest.malformed": "not a strict, canonical envelope of a manifest, or a value out of its bounds",
    "manifest.signature": "the envelope is not signed by the key that its manifest names",
    "manifest.link": "a manifest does not name the one before it, or not its own number",
    "manifest.session": "two seals speak of different sessions, hosts or keys",
    "host.uid": "the uid does not follow from the host's key and counter",
    "host.genesis": "the genesis of a track does not follow from the session",
    "track.unlisted": "a track is listed without fragments, or has fragments and is not listed",
    "chunk.missing": "a listed chunk is not there",
    "chunk.unnamed": "a file in chunks/ is named like a chunk, and the manifest lists none so",
    "chunk.length": "a chunk's file is longer or shorter than it was sealed",
    "chunk.digest": "a chunk does not hold the sealed bytes",
    "chunk.header": "a chunk's header says something else than the manifest",
    "chunk.entry": "the fields of a listed chunk contradict each other or the settings",
    "chunk.offset": "a chunk does not begin where the one before it on its track ended",
    "tree.size": "the tree has another number of leaves than chunks are listed",
    "tree.root": "the root does not follow from the listed chunks",
    "chain.header": "the header of a chunk's last fragment is malformed or belongs elsewhere",
    "chain.head": "a head does not follow from its header and body digest",
    "chain.signature": "the host did not sign a listed head",
    "chain.broken": "a chunk does not follow the one before it on its track",
    "chain.part": "a part number falls, or is skipped where nothing is missing",
    "chain.overlap": "two chunks hold the same fragment, or stand in the wrong order",
    "chain.hole": "fragments are missing and no gap is declared",
    "gap.unfit": "a declared gap fits no missing fragments and no lost chunk",
    "gap.false": "a declared gap has the wrong place or heads",
    "gap.after": "the fragment after a gap is not the one that follows it",
    "part.malformed": "a part fragment is malformed or belongs elsewhere",
    "part.signature": "the host did not sign a part fragment",
    "part.missing": "a chunk's part has no part fragment",
    "part.unused": "a part is listed, and no chunk begins with it",
    "equivocation.false": "a listed equivocation is not two signed fragments for one place",
    "ending.malformed": "the ending fragment is malformed or belongs elsewhere",
    "ending.signature": "the ending fragment lacks the signature of the host, or of the manifest's signer",
    "ending.place": "the ending is not where the session ends",
    "ending.tracks": "the ending names other tracks, fragments or heads than the listed ones",
    "ending.plain": "the ending names other amounts than the listed ones",
    "ending.reason": "end, reason or time of the ending are not the manifest's",
    "totals.false": "a total is not the sum over the listed chunks",
    "history.missing": "the history is not there",
    "history.malformed": "a line of the history is not a strict, canonical event",
    "history.digest": "the history is not the one that was sealed",
    "history.seal": "the last sealed line of the history is not this seal's",
    "history.created": "the history does not begin with the creation of a session",
    "history.request": "the host did not sign the request to create the session",
    "history.session": "the host asked for another session than the manifest's, or with other settings",
    "keys.intake": "the key does not give the public key that the host sealed to",
    "open.chunk": "a chunk does not open with the session's key",
    "open.payload": "a chunk opens, and its payload contradicts its header",
    "open.part": "a part key does not open",
    "rows.malformed": "the rows of the index chunks are malformed or out of order",
    "rows.chunk": "the rows of a chunk do not agree with its entry",
    "rows.key_frames": "the key frame rows are not those of the fragments",
    "rows.cut": "the index chunks are not cut as they must be",
    "fragment.digest": "a fragment, sealed again, has another digest than the host signed",
    "fragment.head": "a recomputed head is not the one that is listed",
    "fragment.signature": "the host did not sign a fragment",
    "cut.false": "a chunk was not cut where the rules say",
    "tombstone.malformed": "not a strict, canonical envelope of a tombstone",
    "tombstone.signature": "no listed signer signed the tombstone",
}
NOTES: dict[str, str] = {
    "gap.declared": "fragments are missing, as declared",
    "chunk.lost": "a chunk is lost, as declared",
    "end.not_final": "the host did not end the session itself",
    "equivocation.listed": "the host signed two fragments for one place",
    "file.unsealed": "a file lies in the copy that nobody sealed",
    "history.later_seal": "the history names a later seal, whose manifest is not there",
    "host.gap": "the host itself says that it could not record for a while",
    "host.silent": "the host was silent for longer than its tick allows",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding or note. `place` names file, chunk or track; `sealed` and `found` are digests in hex."""

    code: str
    place: str
    message: str
    sealed: str = ""
    found: str = ""

    @property
    def is_note(self) -> bool:
        return self.code in NOTES

    def within(self, place: str) -> "Finding":
        """Return the same finding, about a thing inside `place`."""
        return replace(self, place=f"{place} {self.place}")

    def as_json(self) -> dict[str, str]:
        """Return the members by name; empty digests are left out."""
        named = {"code": self.code, "place": self.place, "message": self.message}
        return named | {name: value for name in ("sealed", "found") if (value := getattr(self, name))}


def stray_files(folder: str, names: Iterable[str]) -> Iterator[Finding]:
    """Yield a note for each file that lies beside the evidence. folder: ends with `/`, or is empty."""
    for name in sorted(names):
        yield Finding(
            "file.unsealed", f"{folder}{printable(name)}", "nobody sealed this file; it was not looked at"
        )


@dataclass(slots=True)
class Summary:
    """The facts for people who read the report; no verdict depends on them."""

    session: str = ""
    uid: str = ""
    root: str = ""
    """Fingerprint of the trust file's root key."""
    signer: str = ""
    signer_name: str = ""
    signer_listed: bool = False
    signer_revoked: bool = False
    host: str = ""
    host_key: str = ""
    """Fingerprint of the host's evidence key."""
    host_listed: bool = False
    """Under the host's name, for the time of every seal's start."""
    host_revoked: bool = False
    seals: int = 0
    sealed_us: int = 0
    end: str = ""
    chunks: int = 0
    """Listed files, index chunks included."""
    chunks_good: int = 0
    plain_bytes: int = 0
    sealed_bytes: int = 0
    fragments: int = 0
    last_seq: int = -1
    """Of track 0."""
    gaps: int = 0
    merkle_root: str = ""
    opened: bool = False
    """The keys were given, and the opened contents were checked."""
    history_lines: int = 0
    """Lines of the history that the last seal covers."""
    history_uncovered: int = 0
    """Lines of the history that came after the seal."""
    on_signers_word: list[str] = field(default_factory=list)
    """Members of the manifest, and `contents`, that only the signer's word vouches for."""


@dataclass(slots=True)
class Report:
    """The result of a verification: its summary, findings, notes."""

    strict: bool = False
    summary: Summary = field(default_factory=Summary)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    unlisted: int = 0
    """Number of findings and notes beyond `MOST`."""

    def add(self, found: Finding) -> None:
        """Keep a finding or note, by its code; of each kind the first `MOST`."""
        kind = self.notes if found.is_note and not self.strict else self.findings
        if len(kind) < MOST:
            kind.append(found)
        else:
            self.unlisted += 1

    def put_first(self, found: list[Finding]) -> None:
        """Add findings before those that are kept already."""
        earlier, self.findings, self.notes = (self.findings, self.notes), [], []
        for each in found:
            self.add(each)
        for kind in earlier:
            for each in kind:
                self.add(each)

    @property
    def exit_code(self) -> int:
        """The first that fits: 3 there is a finding, 9 signer or host is not listed, 0 (format.md §13)."""
        if self.findings:
            return EXIT_FALSE
        listed = self.summary.signer_listed and self.summary.host_listed
        return EXIT_OK if listed else EXIT_SIGNER_UNKNOWN

    @property
    def verdict(self) -> str:
        """The exit code in one word."""
        unknown = "host_unknown" if self.summary.signer_listed else "signer_unknown"
        return {EXIT_FALSE: "false", EXIT_SIGNER_UNKNOWN: unknown, EXIT_OK: "true"}[self.exit_code]
