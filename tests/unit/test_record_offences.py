"""What a host signs against the rules: nothing waits for ever, and nothing that came before is lost."""

import pytest

from handlers.crypto.signatures import public_bytes
from handlers.format.fragment import end_fragment
from handlers.stages.record.admit import Unfit, admit
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Output
from schemas.events.chunk import Ended, Recorded
from schemas.format.fragment import Kind
from tests.support.evidence.folding import HOST, IDENTITY, PUBLIC, SIGNER, UID, Host, run
from tests.support.evidence.offences import ABORTED, WHOLE, Offence

BEFORE = 5


def folded(fold: Fold, stream: list[bytes]) -> list[Output]:
    """Admit and fold, as a recording does it."""
    outputs: list[Output] = []
    for seq, whole in enumerate(stream, 1):
        found = admit(whole, PUBLIC, lambda: [public_bytes(SIGNER)])
        if isinstance(found, Unfit):
            if found.final_of == UID:
                fold.refuse_final(Kind.FINAL, found.code)
        else:
            outputs += run(fold, [FoldedFragment.of(seq, found)])
    return outputs


def begun() -> tuple[Host, list[bytes]]:
    host = Host()
    return host, [fragment for _ in range(BEFORE) for fragment in host.make(("data", 0, 100))]


@pytest.mark.parametrize("offence", WHOLE, ids=lambda offence: offence.__name__)
def test_a_host_that_breaks_a_rule_loses_no_more_than_that(offence: Offence) -> None:
    """Breaks: one fragment that is refused keeps all behind it waiting, and the session open for days."""
    host, stream = begun()
    stream += offence(host.tracks[0], HOST, host.now_us)
    fold = Fold(IDENTITY)
    outputs = folded(fold, stream)
    assert fold.ended
    assert not fold.refused_final
    (ended,) = (output for output in outputs if isinstance(output, Ended))
    assert ended.end == "final"
    assert ended.plain >= BEFORE * 100


@pytest.mark.parametrize("offence", ABORTED, ids=lambda offence: offence.__name__)
def test_a_final_that_cannot_be_taken_is_known_and_the_platform_ends_it(offence: Offence) -> None:
    """Breaks: a host has ended its recording, and the session waits for days for what never comes."""
    host, stream = begun()
    stream += offence(host.tracks[0], HOST, host.now_us)
    fold = Fold(IDENTITY)
    folded(fold, stream)
    assert (fold.ended, fold.refused_final) == (False, ABORTED[offence])
    end = end_fragment(UID, "aborted", fold.refused_final, (), 99, SIGNER)
    outputs = folded(fold, [end])
    (ended,) = (output for output in outputs if isinstance(output, Ended))
    assert (ended.end, ended.reason) == ("aborted", ABORTED[offence])
    assert ended.plain >= BEFORE * 100


@pytest.mark.parametrize("offence", [*WHOLE, *ABORTED], ids=lambda offence: offence.__name__)
def test_a_checkpoint_in_the_midst_of_an_offence_continues_it(offence: Offence) -> None:
    """Breaks: a worker that is killed forgets that a recording is to be ended."""
    host, stream = begun()
    stream += [host.tracks[0].pause("user", host.now_us), *offence(host.tracks[0], HOST, host.now_us)]
    calm = Fold(IDENTITY)
    events = [output for output in folded(calm, stream) if isinstance(output, Recorded | Ended)]
    state = calm.state()
    by_seq = {}
    for seq, whole in enumerate(stream, 1):
        found = admit(whole, PUBLIC)
        if not isinstance(found, Unfit):
            by_seq[seq] = FoldedFragment.of(seq, found)
    again = Fold.restore(IDENTITY, state, [by_seq[seq] for seq in state.named])
    assert again.refused_final == calm.refused_final
    assert again.state() == state
    assert events


def test_a_final_of_another_session_or_another_key_ends_nothing() -> None:
    """Breaks: whoever can write to the stream, or replays an old final, ends a recording."""
    host, stream = begun()
    forged = bytearray(host.tracks[0].final((), host.now_us))
    forged[6] = 1
    found = admit(bytes(forged), PUBLIC)
    assert isinstance(found, Unfit)
    assert found.final_of == b""
    fold = Fold(IDENTITY)
    folded(fold, [*stream, bytes(forged)])
    assert not fold.refused_final
