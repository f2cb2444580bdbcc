"""What settings of the services change in a system that is served."""

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.nats_server.server import NatsServer
from tests.api.conftest import environment
from tests.api.test_five_services import serving
from tests.support.machine.waiting import PATIENCE_S


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(private)
    return folder / "tls.crt", folder / "tls.key"


@contextmanager
def up(data: Path, **settings: str) -> Iterator[dict[str, Any]]:
    """What `lucid up --json` says of a system that runs under these settings."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "streams.cli.main", "up", "--json"],
        env=environment(data) | {"SESSION_API_PORT": "0"} | settings,
        cwd=data.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_the_urls_that_others_use_are_told(tmp_path: Path) -> None:
    """Breaks: a person behind a proxy is told an address of the inside, which nobody there reaches."""
    data = tmp_path / "data"
    settings = {"SESSION_API_URL": "https://lucid.example/x/", "SESSION_STORAGE_HOST": "store.example"}
    with up(data, **settings) as told:
        port = told["api_url"].rpartition(":")[2]
        urls = {"storage": f"http://store.example:{port}", "api": "https://lucid.example/x"}
        assert told["urls"] == urls
        run = json.loads((data / "run.json").read_text())
        assert (run["urls"], run["api_url"]) == (urls, told["api_url"])
        bearer = {"Authorization": f"Bearer {(data / 'admin.token').read_text().strip()}"}
        with httpx.Client(base_url=told["api_url"], headers=bearer, timeout=PATIENCE_S) as client:
            servers = {one["url"] for one in client.get("/openapi.json").json()["servers"]}
            assert servers == {*urls.values(), told["api_url"]}
            shown = client.get("/status").json()["services"]
            assert shown["api"] == {"url": urls["api"], "health": "ok"}
            assert shown["processor"] == {"url": told["api_url"], "health": "ok"}
            made = client.post("/api/v1/sessions", json={"id": "here"})
            assert made.headers["location"] == "/api/v1/sessions/here"


def statuses(*urls: str) -> list[int]:
    return [httpx.get(url, timeout=PATIENCE_S).status_code for url in urls]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    """Breaks: numbers of an installation stand open though they were switched off."""
    with up(tmp_path / "data", METRICS_ENABLED="false") as told:
        answer = httpx.get(f"{told['api_url']}/metrics", timeout=PATIENCE_S)
        assert (answer.status_code, answer.json()["code"]) == (404, "metrics.off")


async def test_the_pipeline_alone_has_a_second_port_for_metrics(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a monitor is told a port for metrics, and nothing listens there."""
    port, alone = free_port(), {"NATS_URL": server.url, "NATS_MAX_STORAGE_MB": "1024"}
    settings = environment(tmp_path / "data") | alone | {"METRICS_PORT": str(port)}
    with serving("pipeline", free_port(), settings) as url:
        beside = f"http://127.0.0.1:{port}"
        assert statuses(f"{beside}/metrics", f"{beside}/health", f"{url}/metrics") == [200, 404, 200]


def test_certificates_port_and_name_of_a_service_have_effect(tmp_path: Path) -> None:
    """Breaks: tokens and recordings go over the wire in the clear though certificates were given."""
    cert, key = make_certificate(tmp_path)
    port = free_port()
    settings = {
        "TLS_CERT_FILE": str(cert),
        "TLS_KEY_FILE": str(key),
        "SERVICE_NAME": "lucid-eu-1",
        "SESSION_API_PORT": str(port),
    }
    with up(tmp_path / "data", **settings) as told:
        assert told["api_url"] == f"https://127.0.0.1:{port}"
        trusted = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(verify=trusted, timeout=PATIENCE_S) as client:
            health = client.get(f"https://localhost:{port}/health").json()
        assert health["service"] == "lucid-eu-1"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/health", timeout=PATIENCE_S)
