"""Checks the fragments that stand whole in a manifest: the ending, the parts, equivocations.

1. The host's `final`, or the installation's `end`, names where each track ends. Without it the platform could
   cut a tail, and the evidence would still verify.
2. Every part of every track has its part fragment: the first fragment of the first chunk of the part.
3. An equivocation is evidence against the host: it counts only if the host signed both fragments.

Source: format.md §4, §9, §13.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from handlers.format.fragment import verify_fragment
from handlers.verify.chain import Tail, signed_head
from handlers.verify.report import Finding
from schemas.errors import Rejected
from schemas.format import fragment
from schemas.format.fragment import MAIN, EndBody, FinalBody, Fragment, Kind, PartBody, TrackTail
from schemas.format.manifest import Chunk, Manifest

FINAL, DONE = "final", "done"
KIND_AT = 5
"""Offset of the kind in a fragment's header."""
PROOF_BYTES = fragment.HEADER_BYTES + 32 + fragment.SIGNATURE_BYTES


@dataclass(slots=True)
class Ending:
    """The ending fragment, parsed; empty if it cannot be read."""

    fragment: Fragment | None = None
    named: dict[int, TrackTail] = field(default_factory=dict)
    tails: dict[int, Tail] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def open_ending(manifest: Manifest) -> Ending:
    """Read the ending and check it by itself: form, signer, members that the manifest repeats."""
    try:
        whole = fragment.parse(manifest.ending)
        kind = whole.header.kind
        if kind is Kind.FINAL:
            body: FinalBody | EndBody = FinalBody.parse(whole.body)
        elif kind is Kind.END:
            body = EndBody.parse(whole.body)
        else:
            return Ending(findings=[Finding("ending.malformed", "ending", f"is a {kind.name} fragment")])
    except Rejected as error:
        return Ending(findings=[Finding("ending.malformed", "ending", error.message)])
    ending = Ending(whole, {tail.id: tail for tail in body.tracks})
    ending.tails = _tails(whole, ending.named)
    ending.findings.extend(_check_ending(manifest, whole, body))
    return ending


def _tails(whole: Fragment, named: Mapping[int, TrackTail]) -> dict[int, Tail]:
    """For its own track a final names the fragment before it; the track's last fragment is the final."""
    final = whole.header.kind is Kind.FINAL
    tails = {track: Tail(tail.last_seq, tail.head, final) for track, tail in named.items()}
    if final:
        tails[MAIN] = Tail(whole.header.seq, whole.head, False)
    return tails


def _check_ending(manifest: Manifest, whole: Fragment, body: FinalBody | EndBody) -> Iterator[Finding]:
    header = whole.header
    final = isinstance(body, FinalBody)
    signer = manifest.host.key if final else manifest.signer.key
    if header.uid != manifest.uid:
        yield Finding("ending.malformed", "ending", "is of another session")
    if not verify_fragment(signer, whole):
        by = "host" if final else "manifest's signer"
        yield Finding("ending.signature", "ending", f"is not signed by the {by}")
    stated = (FINAL, DONE) if isinstance(body, FinalBody) else (body.end, body.reason)
    if (manifest.end, manifest.reason, manifest.ended_us) != (*stated, header.time_us):
        yield Finding("ending.reason", "ending", "end, reason or time are not the manifest's")


def check_ending(manifest: Manifest, ending: Ending) -> Iterator[Finding]:
    """Check the ending against the listed chunks."""
    yield from ending.findings
    if ending.fragment is None:
        return
    header = ending.fragment.header
    with_fragments: set[int] = {chunk.track for chunk in manifest.chunks}
    if header.kind is Kind.FINAL:
        own = ending.named[MAIN]
        if (own.last_seq, own.head) != (header.seq - 1, header.prev_head):
            yield Finding(
                "ending.tracks", "ending", "for track 0 it names another fragment than the one before it"
            )
        wrong = with_fragments - ending.named.keys()
    else:
        wrong = with_fragments ^ ending.named.keys()
    yield from _check_last(manifest, ending.fragment)
    for track in sorted(wrong):
        yield Finding("ending.tracks", f"track {track}", "the ending and the chunks disagree about it")
    for track, tail in sorted(ending.named.items()):
        chunks = [chunk for chunk in manifest.chunks if chunk.track == track]
        yield from _check_plain(chunks, tail, ending.tails[track], header.kind is Kind.FINAL)
    if manifest.end != FINAL:
        yield Finding(
            "end.not_final", "ending", f"the installation ended it: {manifest.end}, {manifest.reason}"
        )


def _check_last(manifest: Manifest, ending: Fragment) -> Iterator[Finding]:
    """Check that a final is the last fragment of track 0, and the only final."""
    last = None
    if ending.header.kind is Kind.FINAL:
        last = next((chunk for chunk in reversed(manifest.chunks) if chunk.track == MAIN), None)
        if last is None or (last.header, last.last_head) != (ending.raw_header, ending.head):
            yield Finding("ending.place", "ending", "the final is not the last fragment of track 0")
    for chunk in manifest.chunks:
        if chunk is not last and chunk.header[KIND_AT] == Kind.FINAL:
            yield Finding("ending.place", f"chunk {chunk.index}", "ends with a final that is not the ending")


def _check_plain(chunks: list[Chunk], tail: TrackTail, end: Tail, ending_is_final: bool) -> Iterator[Finding]:
    listed = sum(chunk.plain for chunk in chunks)
    held = sum(chunk.last_seq - chunk.first_seq + 1 for chunk in chunks)
    holes = ending_is_final and held < end.last_seq + 1
    if tail.plain != listed and not (holes and tail.plain > listed):
        message = f"the ending names {tail.plain} plain bytes, listed are {listed}"
        yield Finding("ending.plain", f"track {tail.id}", message)


def check_parts(manifest: Manifest) -> Iterator[Finding]:
    """Check that the host signed every part fragment, and that each begins the first chunk of its part."""
    firsts: dict[tuple[int, int], Chunk] = {}
    for chunk in manifest.chunks:
        firsts.setdefault((chunk.track, chunk.part), chunk)
    listed = {(part.track, part.part) for part in manifest.parts}
    for track, part in sorted(firsts.keys() - listed):
        yield Finding("part.missing", f"track {track} part {part}", "has chunks and no part fragment")
    for item in manifest.parts:
        place = f"track {item.track} part {item.part}"
        first = firsts.get((item.track, item.part))
        try:
            whole = fragment.parse(item.fragment)
            if whole.header.kind is not Kind.PART:
                raise Rejected(f"is a {whole.header.kind.name} fragment", code="fragment.kind")
            PartBody.parse(whole.body)
        except Rejected as error:
            yield Finding("part.malformed", place, error.message)
            continue
        header = whole.header
        if (header.uid, header.track, header.part) != (manifest.uid, item.track, item.part):
            yield Finding("part.malformed", place, "is of another session, track or part")
        if not verify_fragment(manifest.host.key, whole):
            yield Finding("part.signature", place, "the host did not sign it")
        if first is None:
            yield Finding("part.unused", place, "no chunk is of this part")
        elif not _begins(first, whole):
            yield Finding("part.unused", place, f"is not the first fragment of chunk {first.index}")


def _begins(chunk: Chunk, whole: Fragment) -> bool:
    header = whole.header
    if (header.seq, header.time_us, header.prev_head) != (chunk.first_seq, chunk.first_us, chunk.prev_head):
        return False
    return chunk.first_seq != chunk.last_seq or whole.head == chunk.last_head


def check_equivocations(manifest: Manifest) -> Iterator[Finding]:
    """Check that each is two different fragments which the host signed for one (track, seq)."""
    for number, item in enumerate(manifest.equivocations):
        place = f"equivocation {number}"
        heads = set()
        for raw in (item.a, item.b):
            header_end, digest_end = fragment.HEADER_BYTES, fragment.HEADER_BYTES + 32
            header, top, found = signed_head(
                manifest, raw[:header_end], raw[header_end:digest_end], raw[digest_end:], place
            )
            if len(raw) != PROOF_BYTES or header is None or found:
                yield Finding("equivocation.false", place, "one side is not a fragment that the host signed")
            elif (header.track, header.seq) != (item.track, item.seq):
                yield Finding("equivocation.false", place, "one side is of another track or seq")
            heads.add(top)
        if len(heads) != 2:
            yield Finding("equivocation.false", place, "both sides are the same fragment")
        yield Finding(
            "equivocation.listed",
            f"track {item.track} seq {item.seq}",
            "the host signed two fragments for this place",
        )
