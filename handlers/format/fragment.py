"""Seals and opens fragments, and makes the platform's `end` fragment (format.md §4).

1. A `FragmentSealer` makes each (track, seq) once: a retry sends the same bytes.
2. The chain covers ciphertext: its check needs no key.
3. The platform opens a part key from the part fragment alone.

The bytes of a fragment are in schemas.format.fragment.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handlers.crypto.keys import new_key, seal_part_key
from handlers.crypto.signatures import verify_signature
from schemas.buffers import unfilled
from schemas.errors import EvidenceFalse, Misuse
from schemas.format.digest import ZERO, Buffer, h
from schemas.format.fragment import (
    END_SIGNED,
    HEADER_BYTES,
    KEY_FRAME,
    MAIN,
    MAX_BODY,
    MAX_DATA_PLAIN,
    SIGNATURE_BYTES,
    SIGNED,
    TAG_BYTES,
    EndBody,
    FinalBody,
    Fragment,
    GapBody,
    Header,
    Kind,
    PartBody,
    PartSettings,
    ReasonBody,
    TrackTail,
    head,
)
from schemas.format.jcs import jcs
from schemas.ports import SigningKey
from schemas.types import ForcedEnd


class _Scratch(threading.local):
    """One reusable buffer per thread: new memory for each body would cost more than its encryption."""

    def __init__(self) -> None:
        self.body = memoryview(bytearray(MAX_BODY))


_scratch = _Scratch()


@dataclass(frozen=True, slots=True)
class SealerState:
    """The state of a track on its host."""

    next_seq: int
    head: bytes
    """The genesis while next_seq is 0."""
    part: int
    """-1 before the first part fragment."""
    plain: int
    """Plain bytes of the whole track."""


class FragmentSealer:
    """Seals one track of one session on its host. Not thread-safe."""

    def __init__(
        self,
        uid: bytes,
        track: int,
        host_sign_key: Ed25519PrivateKey,
        intake_public: bytes,
        genesis: bytes,
        state: SealerState | None = None,
    ) -> None:
        """state: of a track that another sealer began; this one begins a part of its own."""
        self._uid = uid
        self._track = track
        self._host = host_sign_key
        self._intake = intake_public
        self._part_key = b""
        self.state = state or SealerState(0, genesis, -1, 0)

    def part(self, settings: PartSettings, time_us: int) -> bytearray:
        """Return the part fragment that begins a part under a new key: of a new track or encoder."""
        text = jcs(settings.model_dump())
        header = replace(
            self._header(Kind.PART, time_us, 2 + len(text) + PartBody.ENC_BYTES + PartBody.CIPHERTEXT_BYTES),
            part=self.state.part + 1,
        )
        key = new_key()
        sealed = seal_part_key(self._intake, key, header.pack(), text)
        body = PartBody(text, sealed[: PartBody.ENC_BYTES], sealed[PartBody.ENC_BYTES :])
        whole = self._clear(header, body.build())
        self._part_key = key
        return whole

    def data(self, plain: Buffer, time_us: int, key_frame: bool = False) -> bytearray:
        """Return a data fragment. plain: up to MAX_DATA_PLAIN bytes; key_frame: it starts with a key frame.

        Raises Misuse (fragment.size, fragment.first).
        """
        if len(plain) > MAX_DATA_PLAIN:
            raise Misuse(
                f"{len(plain)} bytes in one fragment, allowed {MAX_DATA_PLAIN}", code="fragment.size"
            )
        header = self._header(Kind.DATA, time_us, len(plain) + TAG_BYTES, KEY_FRAME if key_frame else 0)
        if not self._part_key:
            raise Misuse("a data fragment needs a part fragment of this sealer first", code="fragment.first")
        whole = _blank(header)
        with memoryview(whole) as view, view[HEADER_BYTES:-SIGNATURE_BYTES] as body:
            AESGCM(self._part_key).encrypt_into(_nonce(header), plain, header.pack(), body)
        return self._finish(header, whole, len(plain))

    def tick(self, time_us: int) -> bytearray:
        return self._marker(Kind.TICK, b"", time_us)

    def gap(self, from_us: int, to_us: int, frames: int, reason: str, time_us: int) -> bytearray:
        """Return a gap fragment: the time and the frames that the host could not record."""
        body = GapBody(from_us=from_us, to_us=to_us, frames=frames, reason=reason)
        return self._marker(Kind.GAP, body.build(), time_us)

    def pause(self, reason: str, time_us: int) -> bytearray:
        return self._marker(Kind.PAUSE, ReasonBody(reason=reason).build(), time_us)

    def resume(self, reason: str, time_us: int) -> bytearray:
        return self._marker(Kind.RESUME, ReasonBody(reason=reason).build(), time_us)

    def final(self, others: Iterable[TrackTail], time_us: int) -> bytearray:
        """Return the final fragment. others: tails of the other tracks with a fragment.

        Raises Misuse (fragment.track): this is not track 0.
        """
        if self._track != MAIN:
            raise Misuse("only track 0 ends a session", code="fragment.track")
        tails = sorted((self.tail(), *others), key=lambda tail: tail.id)
        return self._marker(Kind.FINAL, FinalBody(tracks=tuple(tails)).build(), time_us)

    def tail(self) -> TrackTail:
        """Return the tail of this track. Raises Misuse (fragment.first): it has no fragment."""
        state = self.state
        if state.next_seq == 0:
            raise Misuse(f"track {self._track} has no fragment", code="fragment.first")
        track: Literal[0, 1] = 0 if self._track == MAIN else 1
        return TrackTail(id=track, last_seq=state.next_seq - 1, head=state.head, plain=state.plain)

    def _marker(self, kind: Kind, body: bytes, time_us: int) -> bytearray:
        return self._clear(self._header(kind, time_us, len(body)), body)

    def _clear(self, header: Header, body: bytes) -> bytearray:
        whole = _blank(header)
        whole[HEADER_BYTES:-SIGNATURE_BYTES] = body
        return self._finish(header, whole)

    def _header(self, kind: Kind, time_us: int, body_length: int, flags: int = 0) -> Header:
        state = self.state
        return Header(
            kind,
            flags,
            self._track,
            max(state.part, 0),
            self._uid,
            state.next_seq,
            time_us,
            body_length,
            state.head,
        )

    def _finish(self, header: Header, whole: bytearray, plain: int = 0) -> bytearray:
        """Write header and signature around the body in `whole`."""
        raw = header.pack()
        Header.parse(raw)
        with memoryview(whole) as view, view[HEADER_BYTES:-SIGNATURE_BYTES] as body:
            top = head(raw, h(body))
        whole[:HEADER_BYTES] = raw
        whole[-SIGNATURE_BYTES:] = self._host.sign(SIGNED + top)
        self.state = SealerState(header.seq + 1, top, header.part, self.state.plain + plain)
        return whole


def _blank(header: Header) -> bytearray:
    return unfilled(HEADER_BYTES + header.body_length + SIGNATURE_BYTES)


def end_fragment(
    uid: bytes,
    end: ForcedEnd,
    reason: str,
    tracks: Iterable[TrackTail],
    time_us: int,
    signer: SigningKey,
) -> bytes:
    """Return the platform's `end` fragment. tracks: in a manifest those with a chunk, in the stream none."""
    tails = tuple(sorted(tracks, key=lambda tail: tail.id))
    body = EndBody(tracks=tails, end=end, reason=reason).build()
    raw = Header(Kind.END, 0, MAIN, 0, uid, 0, time_us, len(body), ZERO).pack()
    Header.parse(raw)
    return b"".join((raw, body, signer.sign(END_SIGNED + head(raw, h(body)))))


def verify_fragment(public: bytes, fragment: Fragment) -> bool:
    """Whether the key signed the fragment: the host's key, or a signer's for kind 8."""
    prefix = END_SIGNED if fragment.header.kind is Kind.END else SIGNED
    return verify_signature(public, fragment.head, fragment.signature, prefix)


def open_data(part_key: bytes, fragment: Fragment) -> bytes:
    """Return the plain bytes of a data fragment. Raises EvidenceFalse (fragment.tag)."""
    _check_data(fragment.header)
    try:
        return AESGCM(part_key).decrypt(_nonce(fragment.header), fragment.body, fragment.raw_header)
    except InvalidTag:
        raise _tag(fragment) from None


def open_data_into(part_key: bytes, fragment: Fragment, buffer: memoryview) -> int:
    """Write the plain bytes to the front of `buffer`; return how many. Raises EvidenceFalse (fragment.tag).

    After a failure the content of `buffer` is undefined.
    """
    _check_data(fragment.header)
    nonce = _nonce(fragment.header)
    try:
        AESGCM(part_key).decrypt_into(nonce, fragment.body, fragment.raw_header, buffer[: fragment.plain])
    except InvalidTag:
        raise _tag(fragment) from None
    return fragment.plain


def reseal_digest(part_key: bytes, header: Header, plain: Buffer) -> bytes:
    """Return H(body) of the data fragment with this header and these plain bytes."""
    _check_data(header)
    body = _scratch.body[: len(plain) + TAG_BYTES]
    AESGCM(part_key).encrypt_into(_nonce(header), plain, header.pack(), body)
    return h(body)


def _check_data(header: Header) -> None:
    if header.kind is not Kind.DATA:
        raise Misuse(f"a {header.kind.name} fragment holds no data", code="fragment.kind")


def _nonce(header: Header) -> bytes:
    return header.track.to_bytes(4, "little") + header.seq.to_bytes(8, "little")


def _tag(fragment: Fragment) -> EvidenceFalse:
    header = fragment.header
    return EvidenceFalse(
        f"fragment {header.seq} of track {header.track} does not open under the key of part {header.part}",
        code="fragment.tag",
    )
