"""Commands that bring a session through its states."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.events.commands import CREATE_PREFIX, Create, Open, create_request
from schemas.events.session import (
    SessionSettings,
)

HOST = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


HOST_KEY = HOST.public_key().public_bytes_raw()


def create(session: str = "demo-01", counter: int = 1, key: Ed25519PrivateKey = HOST) -> Create:
    settings = SessionSettings()
    signed = CREATE_PREFIX + create_request(session, "host-1", HOST_KEY, counter, bytes(32), settings)
    return Create(
        session=session, at_us=1, who="host-1", cause=f"create-{counter}", host="host-1", host_key=HOST_KEY,
        counter=counter, prev_genesis=bytes(32), settings=settings, request=key.sign(signed),
    )  # fmt: skip


def open_upload(cause: str = "open-1", details: bytes = b"sealed", **more: object) -> Open:
    """The platform's own request for demo-01, signed as host-1."""
    return Open.model_validate(
        {**create().model_dump(), "cause": cause, "dek_id": b"k" * 16, "details": details, **more}
    )


BEGIN = {"sealed_us": 9, "signer": "cc" * 32, "n": 2, "stored": 40}


COMPLETE = {"manifest": "dd" * 32, "root": "ee" * 32, "chunks": 3, "plain": 10, "sealed": 20}
