"""The primitives of docs/format.md, rebuilt from published specifications.

1. Nothing here comes from the product: only the standard library and public packages.
2. What is refused raises `Bad` with a stable code; hostile input never raises anything else.
3. HPKE is written out (RFC 9180, X-Wing), so that the document alone is enough to open a part key.

Source: docs/format.md §1, §3 and §6.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

ZERO32 = bytes(32)
ED25519_P = 2**255 - 19
ED25519_L = 2**252 + 27742317777372353535851937790883648493
# y of the points of order 8; 0, 1 and p − 1 are those of order 4, 1 and 2
ORDER_8_Y = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
SMALL_ORDER_Y = {0, 1, ED25519_P - 1, ORDER_8_Y, ED25519_P - ORDER_8_Y}
FRAGMENT_PREFIX = b"lucid v1 fragment\0"
END_PREFIX = b"lucid v1 end\0"
CREATE_PREFIX = b"lucid v1 create\0"
XWING_LABEL = b"\\.//^\\"
HPKE_SUITE = b"HPKE" + bytes.fromhex("647a00010002")


class Bad(Exception):
    """What was read is not what the format allows; `code` is stable, `text` says what was seen."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} [{code}]")
        self.code = code
        self.text = text


def h(data: bytes) -> bytes:
    """H: BLAKE3-256."""
    return blake3(data).digest()


def d(context: str, data: bytes) -> bytes:
    """D: BLAKE3 in derive-key mode, 32 bytes."""
    return blake3(data, derive_key_context=context).digest()


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 §2.3 with HMAC-BLAKE2b-512 (block 128)."""
    out, block, count = b"", b"", 1
    while len(out) < length:
        block = hmac.new(key, block + info + bytes([count]), hashlib.blake2b).digest()
        out += block
        count += 1
    return out[:length]


def fingerprint(public_key: bytes) -> str:
    return h(public_key).hex()


def session_uid(host_key: bytes, counter: int) -> bytes:
    return d("lucid v1 uid", host_key + struct.pack("<Q", counter))[:16]


def genesis(uid: bytes, track: int, host_key: bytes, counter: int, prev: bytes, intake: bytes) -> bytes:
    """prev: track-0 genesis of the host's previous session; intake: H(intake public key)."""
    return d(
        "lucid v1 genesis",
        uid + struct.pack("<H", track) + host_key + struct.pack("<Q", counter) + prev + intake,
    )


def fragment_head(header: bytes, body_digest: bytes) -> bytes:
    return d("lucid v1 head", header + body_digest)


def _plain_point(encoded: bytes) -> bool:
    """True for the canonical encoding of a point that is not of small order."""
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    return y < ED25519_P and y not in SMALL_ORDER_Y


def signature_is_good(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ed25519 as docs/format.md wants it: RFC 8032, S < L, canonical A and R, neither of small order."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    if int.from_bytes(signature[32:], "little") >= ED25519_L:
        return False
    if not (_plain_point(public_key) and _plain_point(signature[:32])):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def hchacha20(key: bytes, nonce16: bytes) -> bytes:
    """draft-irtf-cfrg-xchacha §2.2, from one ChaCha20 block less its input words."""
    stream = Cipher(algorithms.ChaCha20(key, nonce16), mode=None).encryptor().update(bytes(64))
    words = struct.unpack("<16I", stream)
    first = struct.unpack("<4I", b"expand 32-byte k")
    last = struct.unpack("<4I", nonce16)
    out = [(w - c) & 0xFFFFFFFF for w, c in zip(words[:4] + words[12:], first + last, strict=True)]
    return struct.pack("<8I", *out)


def xchacha_seal(key: bytes, nonce24: bytes, plain: bytes, aad: bytes) -> bytes:
    return ChaCha20Poly1305(hchacha20(key, nonce24[:16])).encrypt(bytes(4) + nonce24[16:], plain, aad)


def xchacha_open(key: bytes, nonce24: bytes, sealed: bytes, aad: bytes) -> bytes:
    return ChaCha20Poly1305(hchacha20(key, nonce24[:16])).decrypt(bytes(4) + nonce24[16:], sealed, aad)


def dek_id(dek: bytes) -> bytes:
    return expand(dek, b"lucid/v1/id", 16)


def chunk_keys(dek: bytes, header72: bytes) -> tuple[bytes, bytes, bytes]:
    """Return key, nonce key and commitment of the chunk whose first 72 header bytes are given."""
    seal = expand(expand(dek, b"lucid/v1/chunk\0" + header72, 32), b"lucid/v1/seal\0", 96)
    return seal[:32], seal[32:64], seal[64:]


def chunk_nonce(nonce_key: bytes, header72: bytes, payload: bytes, suite: int) -> bytes:
    nonce = blake3(b"lucid v1 nonce" + header72 + h(payload), key=nonce_key).digest()[:24]
    return nonce if suite == 1 else nonce[:12] + bytes(12)


def aead_open(suite: int, key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Open with suite 1 or 2; raises Bad chunk.tag."""
    try:
        if suite == 1:
            return xchacha_open(key, nonce, sealed, aad)
        return AESGCM(key).decrypt(nonce[:12], sealed, aad)
    except InvalidTag:
        raise Bad("chunk.tag", "the authentication tag does not fit") from None


def aead_seal(suite: int, key: bytes, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    if suite == 1:
        return xchacha_seal(key, nonce, plain, aad)
    return AESGCM(key).encrypt(nonce[:12], plain, aad)


BLOB_LABELS = {1: b"lucid/v1/details", 2: b"lucid/v1/rdp-password"}


def seal_blob(dek: bytes, uid: bytes, kind: int, revision: int, text: bytes) -> bytes:
    """Seal personal fields (kind 1) or the RDP password (kind 2)."""
    filled = struct.pack("<H", len(text)) + text
    content = filled + bytes(-len(filled) % 256)
    keys = expand(dek, BLOB_LABELS[kind], 64)
    aad = bytes((1, kind)) + uid + struct.pack("<Q", revision)
    nonce = blake3(aad + content, key=keys[32:]).digest()[:24]
    return bytes((1, kind)) + nonce + xchacha_seal(keys[:32], nonce, content, aad)


def open_blob(dek: bytes, uid: bytes, kind: int, revision: int, blob: bytes) -> bytes:
    """Return the text of a blob; raises Bad details."""
    keys = expand(dek, BLOB_LABELS[kind], 64)
    aad = bytes((1, kind)) + uid + struct.pack("<Q", revision)
    nonce, sealed = blob[2:26], blob[26:]
    try:
        content = xchacha_open(keys[:32], nonce, sealed, aad)
    except InvalidTag:
        raise Bad("details.tag", "the authentication tag does not fit") from None
    end = 2 + int.from_bytes(content[:2], "little")
    if blob[:2] != bytes((1, kind)) or nonce != blake3(aad + content, key=keys[32:]).digest()[:24]:
        raise Bad("details.tag", "the nonce does not follow from these bytes")
    if len(content) % 256 or len(content) != end + -end % 256 or any(content[end:]):
        raise Bad("details.content", "the text has another length")
    return content[2:end]


class IntakeKey:
    """The X-Wing pair of one session, by which hosts send part keys to the platform."""

    def __init__(self, dek: bytes) -> None:
        stretched = hashlib.shake_256(expand(dek, b"lucid/v1/intake", 32)).digest(96)
        self._mlkem = MLKEM768PrivateKey.from_seed_bytes(stretched[:64])
        self._x25519 = X25519PrivateKey.from_private_bytes(stretched[64:])
        self._x25519_public = self._x25519.public_key().public_bytes_raw()
        self.public = self._mlkem.public_key().public_bytes_raw() + self._x25519_public

    def decapsulate(self, enc: bytes) -> bytes:
        """X-Wing: SHA3-256(ML-KEM secret ‖ X25519 secret ‖ X25519 ciphertext ‖ X25519 public ‖ label)."""
        sent = enc[1088:]
        lattice = self._mlkem.decapsulate(enc[:1088])
        curve = self._x25519.exchange(X25519PublicKey.from_public_bytes(sent))
        return hashlib.sha3_256(lattice + curve + sent + self._x25519_public + XWING_LABEL).digest()

    def open(self, enc: bytes, ciphertext: bytes, info: bytes) -> bytes:
        """HPKE base mode, one message, no AAD (RFC 9180 §5.1, §6.1); raises Bad part.key."""
        try:
            shared = self.decapsulate(enc)
            key, nonce = hpke_schedule(shared, info)
            return AESGCM(key).decrypt(nonce, ciphertext, b"")
        except (InvalidTag, ValueError):
            raise Bad("part.key", "the part key cannot be opened") from None


def hpke_schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """RFC 9180 §5.1 with HKDF-SHA256: AES-256-GCM key and base nonce."""

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.new(salt, b"HPKE-v1" + HPKE_SUITE + label + ikm, hashlib.sha256).digest()

    def expand_one(prk: bytes, label: bytes, context: bytes, length: int) -> bytes:
        text = length.to_bytes(2, "big") + b"HPKE-v1" + HPKE_SUITE + label + context + b"\1"
        return hmac.new(prk, text, hashlib.sha256).digest()[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return expand_one(secret, b"key", context, 32), expand_one(secret, b"base_nonce", context, 12)


def data_nonce(track: int, seq: int) -> bytes:
    return struct.pack("<IQ", track, seq)


def seal_data(part_key: bytes, header: bytes, track: int, seq: int, plain: bytes) -> bytes:
    """The body of a data fragment; AES-GCM is deterministic, so the reader runs it again."""
    return AESGCM(part_key).encrypt(data_nonce(track, seq), plain, header)


def merkle_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1 shape over leaf hashes; the empty tree is H("")."""
    if not leaves:
        return h(b"")
    level = leaves
    while len(level) > 1:
        paired = [h(b"\1" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def make_key_file(
    master: bytes, master_version: int, uid: bytes, dek: bytes, nonce: bytes, padding: bytes
) -> bytes:
    """The 4,096 bytes of a session's key file; nonce: 24 random bytes, padding: 3,980."""
    head = b"LKEY\1\0\0\0" + struct.pack("<I", master_version) + uid + dek_id(dek)
    return head + nonce + xchacha_seal(_wrap_key(master, padding), nonce, dek, head) + padding


def open_key_file(master: bytes, uid: bytes, whole: bytes) -> bytes:
    """The data key. Raises Bad keys.file when length, version, key or binding is wrong."""
    if len(whole) != 4096 or whole[:8] != b"LKEY\1\0\0\0" or whole[12:28] != uid:
        raise Bad("keys.file", "it is no key file of this session")
    try:
        dek = xchacha_open(_wrap_key(master, whole[116:]), whole[44:68], whole[68:116], whole[:44])
    except InvalidTag:
        raise Bad("keys.file", "the key file does not open") from None
    if dek_id(dek) != whole[28:44]:
        raise Bad("keys.file", "the key file holds another data key")
    return dek


def _wrap_key(master: bytes, padding: bytes) -> bytes:
    return d("lucid v1 session wrap", master + padding)
