"""Folds one session's fragments into chunks (format.md §5).

1. Pure: the same fragments in the same stream order give the same chunks. No clock is read.
2. Every fragment has passed admit.py: its signature is checked.
3. An invalid fragment is refused and changes neither fold nor session.
4. Only content declares a gap: a fragment WINDOW or more ahead; a PART, GAP or FINAL; or END. The sender of
   a PART, GAP or FINAL has an ack for every earlier fragment, or has given it up. So a refused fragment
   leaves a gap, and later fragments never wait for ever.
5. END ends the recording at its place in the stream, with every fragment before it.
6. A refused FINAL ends nothing, but its host sends no more: `refused_final` asks the platform to end it.
7. `restore` continues the fold exactly, from `state()` after any step and the fragments that it names.
"""

from collections.abc import Iterable

from handlers.stages.record.final_check import check_final
from handlers.stages.record.open_chunk import Track, closes_before
from handlers.stages.record.pieces import Duplicate, FoldedFragment, Identity, LateDuplicate, Output, Refused
from schemas.events.chunk import ClosedBy, Ended, Equivocation, FoldState, Recorded, TrackEnd, TrackState
from schemas.format.fragment import MAIN, WINDOW, EndBody, FinalBody, GapBody, Kind, TrackTail
from schemas.format.manifest import FINAL_REASON, MAX_EQUIVOCATIONS
from schemas.types import EndKind

KEPT = (
    *("at", "next_index", "fragments", "plain", "equivocations"),
    *("host_gaps", "host_gap_reason", "refused_final"),
)
"""Members that a fold and its state share by name."""
BARRIERS = frozenset({Kind.PART, Kind.GAP})
"""Sent after every earlier fragment is acknowledged: a missing one before them never arrives."""


class Fold:
    """The fold of one session: `take` each fragment in stream order and get its outcomes."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.at = 0
        self.next_index = 0
        self.fragments = 0
        self.plain = 0
        self.duplicates = 0
        self.equivocations = 0
        self.ended = False
        self.host_gaps = 0
        self.host_gap_reason = ""
        self.refused_final = ""
        """Code of the refused final of the host; empty: none was refused."""
        self._ending: FoldedFragment | None = None
        """The FINAL or END whose `Ended` is not made yet."""
        self._end_came = False
        self._new_equivocations: list[Equivocation] = []
        self._tracks: dict[int, Track] = {}

    @classmethod
    def restore(cls, identity: Identity, state: FoldState, fragments: Iterable[FoldedFragment]) -> "Fold":
        """Return the fold at `state`. fragments: every fragment that the state names, in any order.

        Call `settle_waiting()` next: one fragment may cause several steps, and `state` may be in between.
        """
        fold = cls(identity)
        by_stream_seq = {fragment.stream_seq: fragment for fragment in fragments}
        for name in KEPT:
            setattr(fold, name, getattr(state, name))
        for saved in state.tracks:
            track = Track(
                saved.id, saved.genesis, saved.next_seq, saved.head, saved.offset, saved.part,
                saved.part_fragment, lossy=saved.lossy,
            )  # fmt: skip
            for stream_seq in saved.open:
                track.add(by_stream_seq[stream_seq])
            early = [by_stream_seq[stream_seq] for stream_seq in saved.early]
            track.early = {fragment.header.seq: fragment for fragment in early}
            fold._tracks[saved.id] = track
        fold._ending = by_stream_seq[state.ending] if state.ending else None
        fold._end_came = fold._ending is not None and fold._ending.header.kind is Kind.END
        return fold

    def state(self) -> FoldState:
        """Return the state after the last step, for `restore`."""
        return FoldState(
            **{name: getattr(self, name) for name in KEPT},
            ending=self._ending.stream_seq if self._ending else 0,
            tracks=tuple(
                TrackState(
                    id=track.id, genesis=track.genesis, next_seq=track.next_seq, head=track.head,
                    offset=track.offset, part=track.part, part_fragment=track.part_fragment,
                    lossy=track.lossy, open=tuple(fragment.stream_seq for fragment in track.open),
                    early=tuple(sorted(fragment.stream_seq for fragment in track.early.values())),
                )
                for _, track in sorted(self._tracks.items())
            ),
        )  # fmt: skip

    def tails(self) -> tuple[TrackTail, ...]:
        """Return the tail of each track with an accepted fragment. Waiting fragments do not count."""
        return tuple(track.tail() for _, track in sorted(self._tracks.items()) if track.expected)

    def take(self, fragment: FoldedFragment) -> list[Output]:
        """Fold one fragment. Returns its outcomes in order: closed chunks, refusals, the end."""
        out: list[Output] = []
        self.at = fragment.stream_seq
        if fragment.header.uid != self.identity.uid:
            return [Refused(fragment, "fragment.uid", "the fragment is of another session")]
        if fragment.header.kind == Kind.END:
            if self.ended:
                return [Duplicate(fragment)]
            self._ending, self._end_came = fragment, True
        else:
            track = self._track(fragment.header.track)
            known = track.known(fragment.header.seq)
            if known is not None:
                self.compare(fragment, known.head, known.proof)
                return [Duplicate(fragment)]
            if self.ended:
                return [Refused(fragment, "fragment.after_end", "the recording has ended")]
            if fragment.header.seq < track.expected:
                self.refuse_final(fragment.header.kind, "fragment.late")
                return [LateDuplicate(fragment)]
            track.early[fragment.header.seq] = fragment
        out.extend(self.settle_waiting())
        return out

    def ends_open_chunk(self, stream_seq: int) -> bool:
        """Whether the fragment is, for now, the last one of an open chunk."""
        return any(track.open and track.open[-1].stream_seq == stream_seq for track in self._tracks.values())

    def refuse_final(self, kind: Kind, code: str) -> None:
        """Note that a final was refused. Other kinds change nothing. code: the reason."""
        if kind is Kind.FINAL and not self.ended:
            self.refused_final = self.refused_final or code

    def settle_waiting(self) -> list[Output]:
        """Accept the waiting fragments that are next on their track, or behind a gap; then the ending."""
        out: list[Output] = []
        for track_id in sorted(self._tracks, reverse=True):  # track 0 last: its `final` waits for the others
            self._settle_track(self._tracks[track_id], out)
        if self._ending is not None and not self.ended:
            if self._ending.header.kind is Kind.FINAL:
                out.append(self._end(self._ending, "final", FINAL_REASON))
            else:
                self._take_end(self._ending, out)
        return out

    def compare(self, fragment: FoldedFragment, taken_head: bytes, taken_proof: bytes) -> None:
        """Count `fragment` as a duplicate of the accepted one in its place, or note the equivocation.

        The first in stream order stays. taken_proof: header ‖ H(body) ‖ signature, 192 bytes.
        """
        if taken_head == fragment.head:
            self.duplicates += 1
            return
        self.equivocations += 1
        self.refuse_final(fragment.header.kind, "fragment.equivocation")
        if self.equivocations <= MAX_EQUIVOCATIONS:
            where = {"track": fragment.header.track, "seq": fragment.header.seq}
            self._new_equivocations.append(Equivocation(**where, a=taken_proof, b=fragment.proof))

    def _track(self, track_id: int) -> Track:
        if track_id not in self._tracks:
            genesis = self.identity.genesis[track_id]
            self._tracks[track_id] = Track(track_id, genesis, 0, genesis)
        return self._tracks[track_id]

    def _settle_track(self, track: Track, out: list[Output]) -> None:
        while track.early and not self.ended:
            first = min(track.early)
            fragment = track.early[first]
            gap = first != track.expected
            if gap and not self._declares_gap(track):
                return
            refusal = self._check(track, fragment, gap)
            if refusal is None:
                self._accept(track, fragment, out)
            else:
                del track.early[first]
                self.refuse_final(fragment.header.kind, refusal[0])
                out.append(Refused(fragment, *refusal))

    def _declares_gap(self, track: Track) -> bool:
        return (
            max(track.early) >= track.expected + WINDOW
            or any(other.header.kind in BARRIERS for other in track.early.values())
            or self._end_came
            or self._final_is_in()
        )

    def _final_is_in(self) -> bool:
        """Whether a final waits: fragments missing on any track are then lost."""
        main = self._tracks.get(MAIN)
        return main is not None and any(early.header.kind is Kind.FINAL for early in main.early.values())

    def _check(self, track: Track, fragment: FoldedFragment, gap: bool) -> tuple[str, str] | None:
        header = fragment.header
        if not gap and header.prev_head != track.live_head:
            return "fragment.chain", "its previous head is not the head of the fragment before it"
        if header.kind == Kind.PART:
            fits = header.part == track.part + 1 or (gap and header.part > track.part)
        else:
            fits = header.part == track.part
        if not fits:
            return "fragment.part", f"it names part {header.part}, the track is in part {track.part}"
        if header.kind == Kind.FINAL:
            return check_final(self._tracks, fragment, gap)
        return None

    def _accept(self, track: Track, fragment: FoldedFragment, out: list[Output]) -> None:
        """Add one fragment, closing before and after it as format.md §5 says.

        The fragment stays in `early` until it is added, so that a state in between still names it.
        """
        if fragment.header.kind == Kind.FINAL:
            for tail in FinalBody.parse(fragment.row.body).tracks:
                self._track(tail.id)  # a track without fragments is listed, too
            for other_id, other in sorted(self._tracks.items()):
                if other_id != track.id and other.open:
                    out.append(self._close(other, "final"))
        why = closes_before(track, fragment, self.identity.settings)
        if why is not None:
            out.append(self._close(track, why))
        del track.early[fragment.header.seq]
        track.add(fragment)
        if fragment.header.kind == Kind.GAP:
            self.host_gaps, self.host_gap_reason = self.host_gaps + 1, GapBody.parse(fragment.row.body).reason
        elif fragment.header.kind == Kind.PAUSE:
            out.append(self._close(track, "pause"))
        elif fragment.header.kind == Kind.FINAL:
            # The state of the last chunk names it: a crash before `ended` loses nothing.
            self._ending = fragment
            out.append(self._close(track, "final"))
            for seq in sorted(track.early):
                out.append(
                    Refused(track.early.pop(seq), "fragment.after_final", "final has closed its track")
                )
            out.append(self._end(fragment, "final", FINAL_REASON))

    def _take_end(self, fragment: FoldedFragment, out: list[Output]) -> None:
        body = EndBody.parse(fragment.row.body)
        for track_id in sorted(self._tracks, key=lambda track: (track == MAIN, track)):
            if self._tracks[track_id].open:
                out.append(self._close(self._tracks[track_id], "end"))
        out.append(self._end(fragment, body.end, body.reason))

    def _close(self, track: Track, why: ClosedBy) -> Recorded:
        fragments, plain = track.open, track.open_plain
        first, last = fragments[0], fragments[-1]
        offset, next_index = track.offset, self.next_index
        track.open, track.open_plain, track.open_clear, track.open_data = [], 0, 0, False
        track.next_seq, track.head, track.offset = last.header.seq + 1, last.head, offset + plain
        self.next_index += 1
        self.fragments += len(fragments)
        self.plain += plain
        stream_seqs = [fragment.stream_seq for fragment in fragments]
        return Recorded(
            session=self.identity.session,
            uid=self.identity.uid,
            index=next_index,
            host=self.identity.host,
            track=track.id,
            part=track.part,
            offset=offset,
            plain=plain,
            closed_by=why,
            first_seq=first.header.seq,
            last_seq=last.header.seq,
            first_us=first.header.time_us,
            last_us=last.header.time_us,
            prev_head=first.header.prev_head,
            last_head=last.head,
            last_header=last.raw_header,
            rows=b"".join(fragment.row.pack() for fragment in fragments),
            stream=tuple(now - before for now, before in zip(stream_seqs, [0, *stream_seqs], strict=False)),
            equivocations=self._take_equivocations(),
            state=self.state(),
        )  # fmt: skip

    def _end(self, fragment: FoldedFragment, end: EndKind, reason: str) -> Ended:
        self.ended = True
        self._ending = None
        for track in self._tracks.values():
            track.early.clear()  # nothing after the end is evidence
        return Ended(
            session=self.identity.session,
            uid=self.identity.uid,
            chunks=self.next_index,
            fragments=self.fragments,
            plain=self.plain,
            tracks=tuple(TrackEnd(**tail.model_dump()) for tail in self.tails()),
            genesis={track.id: track.genesis for track in self._tracks.values()},
            end=end,
            reason=reason,
            ended_us=fragment.header.time_us,
            ending=fragment.whole,
            equivocations=self._take_equivocations(),
            state=self.state(),
        )

    def _take_equivocations(self) -> tuple[Equivocation, ...]:
        new, self._new_equivocations = tuple(self._new_equivocations), []
        return new
