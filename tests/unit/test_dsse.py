import json

import pytest

from handlers.crypto.signatures import verify_signature
from schemas.errors import EvidenceFalse
from schemas.format import dsse
from schemas.format.digest import h
from schemas.format.jcs import jcs
from tests.support.evidence.format_samples import SIGNER, SIGNER_PUBLIC

PAYLOAD = jcs({"type": "x", "n": 1})
RAW = dsse.build(PAYLOAD, dsse.TRUST, SIGNER.sign, SIGNER_PUBLIC)


def test_an_envelope_reads_back_and_its_signature_holds() -> None:
    """Breaks: no manifest could be verified."""
    envelope = dsse.parse(RAW, dsse.TRUST)
    assert envelope.payload == PAYLOAD
    assert envelope.value == {"type": "x", "n": 1}
    assert envelope.keyid == h(SIGNER_PUBLIC) == dsse.fingerprint(SIGNER_PUBLIC)
    assert envelope.digest == h(RAW)
    assert verify_signature(SIGNER_PUBLIC, envelope.signed, envelope.sig)


def test_pae_is_dsses_own() -> None:
    """Breaks: other verifiers of DSSE. The example is the one of its specification."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_no_bit_of_an_envelope_can_change_unseen() -> None:
    """Breaks: evidence that was touched would still be called true."""
    for at in range(len(RAW)):
        for bit in range(8):
            bad = bytearray(RAW)
            bad[at] ^= 1 << bit
            try:
                envelope = dsse.parse(bytes(bad), dsse.TRUST)
            except EvidenceFalse:
                continue
            known = envelope.keyid == h(SIGNER_PUBLIC)
            assert not (known and verify_signature(SIGNER_PUBLIC, envelope.signed, envelope.sig))


def _changed(**changes: object) -> bytes:
    return jcs(json.loads(RAW) | changes)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "dsse.form"),
        (RAW + b"\n", "dsse.form"),
        (json.dumps(json.loads(RAW)).encode(), "dsse.form"),
        (_changed(extra=1), "dsse.form"),
        (_changed(signatures=[]), "dsse.form"),
        (_changed(signatures=json.loads(RAW)["signatures"] * 2), "dsse.form"),
        (_changed(signatures=[json.loads(RAW)["signatures"][0] | {"x": 1}]), "dsse.form"),
        (_changed(signatures=[json.loads(RAW)["signatures"][0] | {"sig": "AAAA"}]), "dsse.form"),
        (_changed(signatures=[json.loads(RAW)["signatures"][0] | {"keyid": "00"}]), "dsse.form"),
        (_changed(payload="e30"), "dsse.form"),
        (_changed(payload="e31="), "dsse.form"),
        (_changed(payloadType=dsse.MANIFEST), "dsse.type"),
        (b"[]", "dsse.form"),
    ],
)
def test_another_form_is_refused(raw: bytes, code: str) -> None:
    """Breaks: two texts of one envelope, with one signature."""
    with pytest.raises(EvidenceFalse) as caught:
        dsse.parse(raw, dsse.TRUST)
    assert caught.value.code == code


def test_a_keyid_in_capitals_is_refused() -> None:
    """Breaks: two texts of one envelope."""
    keyid = h(SIGNER_PUBLIC).hex()
    assert keyid.upper() != keyid
    with pytest.raises(EvidenceFalse):
        dsse.parse(RAW.replace(keyid.encode(), keyid.upper().encode()), dsse.TRUST)


def test_an_envelope_above_its_bound_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: memory of the verifier."""
    monkeypatch.setitem(dsse.MAX_BYTES, dsse.TRUST, len(RAW) - 1)
    with pytest.raises(EvidenceFalse) as caught:
        dsse.parse(RAW, dsse.TRUST)
    assert caught.value.code == "dsse.size"
