"""An auth service in a thread: it serves its public keys (JWKS) over HTTP, and signs tokens."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ALGORITHMS = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm,
              "EdDSA": jwt.algorithms.OKPAlgorithm}  # fmt: skip


def new_key(algorithm: str, rsa_bits: int = 2048) -> Any:
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, rsa_bits)


def public_jwk(key: Any, algorithm: str, kid: str, **more: Any) -> dict[str, Any]:
    kind = ALGORITHMS["RS256" if algorithm == "PS256" else algorithm]
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


def signed(
    key: Any, algorithm: str, kid: str = "", headers: dict[str, Any] | None = None, **claims: Any
) -> str:
    """A token; claims given as None are left out."""
    whole = {"sub": "alice", "roles": ["AUDITOR"], "exp": int(time.time()) + 600, **claims}
    whole = {name: value for name, value in whole.items() if value is not None}
    header = {**({"kid": kid} if kid else {}), **(headers or {})}
    return jwt.encode(whole, key, algorithm=algorithm, headers=header)


class AuthService:
    """What it serves can be changed at any time. asked: how often it was."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.server = server
        self.status, self.body, self.location, self.asked = 200, b'{"keys": []}', "", 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/keys"

    def publish(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()


@contextmanager
def auth_service() -> Iterator[AuthService]:
    """A server on a port of its own, ended after the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service.asked += 1
            self.send_response(service.status)
            if service.location:
                self.send_header("Location", service.location)
            self.send_header("Content-Length", str(len(service.body)))
            self.end_headers()
            self.wfile.write(service.body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service = AuthService(server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
