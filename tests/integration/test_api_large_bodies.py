"""Sockets that promise a body and send none: they shut batches and files for nobody, and are ended."""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from herder.broker import Broker
from herder.settings import Settings
from tests.integration.api import Front, problem
from tests.integration.file_calls import chat
from tests.integration.live import Live, live
from tests.integration.streaming import WAIT_S

BATCH, FILES = "/v1/batches", "/v1/files"
SHORT = {"prompts": ["a"], "tokens": 1}
FORM = "multipart/form-data; boundary=x"
PLAIN = "application/json"


def _silent(herder: Live, path: str, kind: str, *framing: str) -> socket.socket:
    """A request whose body never comes."""
    at = urlsplit(herder.url)
    assert at.port is not None
    sock = socket.create_connection((at.hostname, at.port), timeout=WAIT_S)
    head = [
        f"POST {path} HTTP/1.1",
        "Host: herd",
        f"X-API-Key: {herder.key}",
        f"Content-Type: {kind}",
        *framing,
    ]
    sock.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    return sock


def _until_open(client: httpx.Client, herder: Live, count: int) -> None:
    while herder.herd.batches_open < count:
        assert client.get("/healthz").status_code == 200


def test_silent_sockets_of_one_key_shut_nobody_out(settings: Settings, broker: Broker) -> None:
    long = b'{"prompts":["a"],"tokens":1}' + b" " * settings.body_bytes_max
    with (
        live(settings) as herder,
        httpx.Client(base_url=herder.url, trust_env=False, timeout=WAIT_S) as client,
        contextlib.ExitStack() as sockets,
    ):
        client.headers["X-API-Key"] = herder.key
        large = f"Content-Length: {settings.batch_bytes_max}"
        for path, kind in ((BATCH, PLAIN), (FILES, FORM)):
            for framing in ("Content-Length: 100", "Transfer-Encoding: chunked", large, large):
                sockets.enter_context(_silent(herder, path, kind, framing))
        _until_open(client, herder, 2)
        assert client.post(BATCH, json=SHORT).status_code == 202
        asked = {"file": ("a.jsonl", str(chat("a")).encode())}
        assert client.post(FILES, files=asked, data={"purpose": "batch"}).status_code == 200
        refused = client.post(BATCH, content=long)
        assert (refused.status_code, "of this account" in refused.text) == (503, True)
        client.headers["X-API-Key"] = herder.admin_key
        assert client.post(BATCH, content=long).status_code == 202


@pytest.mark.parametrize(("path", "kind"), [(BATCH, PLAIN), (FILES, FORM)])
def test_a_body_that_stops_is_ended(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    monkeypatch.setattr("herder.api.large_bodies.STALL_S", 0.2)
    with live(settings) as herder:
        for framing in ("Content-Length: 100", f"Content-Length: {settings.batch_bytes_max}"):
            with (
                _silent(herder, path, kind, framing, "Connection: close") as sock,
                sock.makefile("rb") as reply,
            ):
                told = reply.read()
            assert told.startswith(b"HTTP/1.1 400 ")
            assert b"nothing of the body came within 0.2 s" in told
        assert herder.herd.batches_open == 0


@pytest.mark.parametrize(("path", "kind"), [(BATCH, PLAIN), (FILES, FORM)])
async def test_more_than_was_declared_is_not_read(front: Front, path: str, kind: str) -> None:
    """What takes no place is no larger than it said, whatever is in front of the herder."""
    headers = {"Content-Length": "10", "Content-Type": kind}
    refusal = problem(await front.client.post(path, content=b" " * 11, headers=headers), 413, "too_large")
    assert "its Content-Length, 10 bytes" in refusal["detail"]
