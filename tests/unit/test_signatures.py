import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto import signatures
from handlers.crypto.signatures import sign, verify_signature
from tests.support.evidence.format_samples import HOST, HOST_PUBLIC

P, L = signatures._P, signatures._L
MESSAGE = b"message"
GOOD = sign(HOST, b"p\0", MESSAGE)


def test_a_signature_holds_for_its_key_prefix_and_message_only() -> None:
    """Breaks: a signature made for one end would serve another."""
    assert verify_signature(HOST_PUBLIC, MESSAGE, GOOD, b"p\0")
    other = signatures.public_bytes(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert not verify_signature(HOST_PUBLIC, MESSAGE, GOOD, b"q\0")
    assert not verify_signature(HOST_PUBLIC, b"Message", GOOD, b"p\0")
    assert not verify_signature(other, MESSAGE, GOOD, b"p\0")
    for bad in (b"", GOOD[:-1], GOOD + b"\0"):
        assert not verify_signature(HOST_PUBLIC, MESSAGE, bad, b"p\0")
    for bad in (b"", HOST_PUBLIC[:-1], HOST_PUBLIC + b"\0"):
        assert not verify_signature(bad, MESSAGE, GOOD, b"p\0")


def test_no_bit_of_a_signature_can_change() -> None:
    """Breaks: a signature would have a second form."""
    for bit in range(512):
        bad = bytearray(GOOD)
        bad[bit // 8] ^= 1 << bit % 8
        assert not verify_signature(HOST_PUBLIC, MESSAGE, bytes(bad), b"p\0")


def test_an_s_of_l_or_more_is_refused() -> None:
    """Breaks: anybody could make a second signature from one."""
    s = int.from_bytes(GOOD[32:], "little") + L
    assert not verify_signature(HOST_PUBLIC, MESSAGE, GOOD[:32] + s.to_bytes(32, "little"), b"p\0")


def _small_order_points() -> set[bytes]:
    """Encodings of the points whose order divides 8, by the curve's own arithmetic."""
    d = -121665 * pow(121666, -1, P) % P

    def root(a: int) -> int | None:
        r = pow(a, (P + 3) // 8, P)
        if r * r % P != a:
            r = r * pow(2, (P - 1) // 4, P) % P
        return r if r * r % P == a else None

    quarter = root((1 + d) % P)
    assert quarter is not None
    eighths = [root((-1 + sign * quarter) * pow(d, -1, P) % P) for sign in (1, -1)]
    ys = {0, 1, P - 1} | {y for e in eighths if e is not None for y in (e, P - e)}
    return {(y | sign << 255).to_bytes(32, "little") for y in ys for sign in (0, 1)}


def test_points_of_small_order_are_refused() -> None:
    """Breaks: under such a key one signature holds for many messages."""
    points = _small_order_points()
    assert len(points) == 10  # eight points, and the two encodings of x = 0 with a sign
    for point in points:
        assert not signatures._good_point(point)
        # S = 0 and R = A of order 1 satisfy the equation for every message where this is not checked
        assert not verify_signature(point, MESSAGE, point + bytes(32))
        assert not verify_signature(HOST_PUBLIC, MESSAGE, point + bytes(32))


@pytest.mark.parametrize("y", [P, P + 1, P + 3, P + 18, 2**255 - 1])
def test_a_point_that_is_not_canonical_is_refused(y: int) -> None:
    """Breaks: one key, and so one fingerprint, would have two encodings."""
    for sign_bit in (0, 1):
        assert not signatures._good_point((y | sign_bit << 255).to_bytes(32, "little"))


def test_rfc_8032s_first_signature_holds() -> None:
    """Breaks: keys and signatures made by others. RFC 8032 §7.1, TEST 1."""
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )
    assert verify_signature(public, b"", signature)
