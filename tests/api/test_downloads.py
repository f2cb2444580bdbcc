"""Downloads over HTTP: conditions, ranges, HEAD, and one manifest on both of its paths."""

from collections.abc import Iterator
from random import Random

import httpx
import pytest

from tests.api.conftest import Served
from tests.api.test_a_recording import SESSIONS, until

BYTES = Random(5).randbytes(300_000)
SEALED, GROWING = "taken", "taken-live"


@pytest.fixture(scope="module")
def taken(served: Served) -> Iterator[httpx.Client]:
    """A client, a sealed session and one that is still recorded."""
    with served.client() as client:
        for session in (SEALED, GROWING):
            assert client.post(SESSIONS, json={"id": session}).status_code == 201
            assert client.post(f"{SESSIONS}/{session}/start").status_code == 200
            assert client.post(f"/pipelines/{session}/chunks", content=BYTES).status_code == 200
        client.post(f"{SESSIONS}/{SEALED}/stop")
        until(client, SEALED, "STOPPED")
        yield client


def paths(client: httpx.Client) -> list[str]:
    """Every path with bytes of the sealed session that has an ETag."""
    of_session = f"{SESSIONS}/{SEALED}"
    return [
        *(f"{of_session}/recording", f"{of_session}/chunks/0/download", f"{of_session}/manifest"),
        *(
            f"{of_session}/chunks/0/download?form=sealed",
            f"/sessions/{SEALED}/manifest",
            f"/chunks/{SEALED}/0",
        ),
    ]


def test_bytes_come_once_and_in_parts_of_one_state(taken: httpx.Client) -> None:
    """Breaks: a download that broke off cannot go on, or goes on with the bytes of another state."""
    for path in paths(taken):
        whole = taken.get(path)
        assert whole.status_code == 200, path
        etag = whole.headers["ETag"]
        assert taken.get(path, headers={"If-None-Match": f'"x", {etag}'}).status_code == 304, path
        rest = taken.get(path, headers={"Range": "bytes=100-", "If-Range": etag, "If-Match": etag})
        assert (rest.status_code, rest.content) == (206, whole.content[100:]), path
        assert rest.headers["Content-Range"] == f"bytes 100-{len(whole.content) - 1}/{len(whole.content)}"
        other = taken.get(path, headers={"Range": "bytes=100-", "If-Range": '"x"'})
        assert (other.status_code, other.content) == (200, whole.content), path
        stale = taken.get(path, headers={"If-Match": '"x"'})
        assert (stale.status_code, stale.json()["code"]) == (412, "request.if_match"), path
        outside = taken.get(path, headers={"Range": f"bytes={len(whole.content)}-"})
        assert (outside.status_code, outside.json()["code"]) == (416, "request.range"), path
        assert outside.headers["Content-Range"] == f"bytes */{len(whole.content)}", path


def test_head_tells_what_get_would_send(taken: httpx.Client) -> None:
    """Breaks: a program learns the length of a download only by taking it."""
    for path in (*paths(taken), f"{SESSIONS}/{GROWING}/recording", f"{SESSIONS}/{SEALED}/evidence"):
        head, whole = taken.head(path, headers={"Range": "bytes=0-0"}), taken.get(path)
        assert (head.status_code, head.content) == (200, b""), path
        for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control", "Accept-Ranges"):
            assert head.headers.get(name) == whole.headers.get(name), (path, name)
    for path in (f"{SESSIONS}/none/recording", f"{SESSIONS}/{SEALED}/chunks/99/download"):
        assert taken.head(path).status_code == taken.get(path).status_code == 404, path


def test_bytes_that_show_a_recording_are_kept_by_no_cache(taken: httpx.Client) -> None:
    """Breaks: a proxy or a browser keeps a recording after its session was destroyed."""
    for path in ("recording", "chunks/0/download", "evidence", "history"):
        assert taken.get(f"{SESSIONS}/{SEALED}/{path}").headers["Cache-Control"] == "no-store", path
    assert taken.get("/api/v1/audit/export").headers["Cache-Control"] == "no-store"


def test_a_recording_has_an_etag_once_it_is_sealed(taken: httpx.Client) -> None:
    """Breaks: the begin of a live recording is taken for the whole one."""
    growing = taken.get(f"{SESSIONS}/{GROWING}/recording")
    assert "ETag" not in growing.headers
    part = taken.get(f"{SESSIONS}/{GROWING}/recording", headers={"Range": "bytes=-1", "If-Range": '""'})
    assert part.status_code == 200
    assert "ETag" in taken.get(f"{SESSIONS}/{SEALED}/recording").headers


def test_both_paths_tell_one_manifest(taken: httpx.Client) -> None:
    """Breaks: a verifier gets another manifest from session-api than from session-processor."""
    both = [f"{SESSIONS}/{SEALED}/manifest", f"/sessions/{SEALED}/manifest"]
    first, second = (taken.get(path) for path in both)
    assert first.content == second.content
    assert first.headers["ETag"] == second.headers["ETag"]
    for path in (f"{SESSIONS}/{GROWING}/manifest", f"/sessions/{GROWING}/manifest"):
        refused = taken.get(path)
        assert (refused.status_code, refused.json()["code"]) == (409, "evidence.unsealed"), path
