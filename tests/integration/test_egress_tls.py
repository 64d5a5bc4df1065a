"""Webhooks over TLS, on loopback: whose certificate is trusted, for which name, and what is said of one that is not."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from herder.egress import Answer, Egress
from herder.errors import SetupError
from tests.integration.receivers import LOOPBACK, receiver, reply


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 and hooks.example that nobody knows, with its key."""
    path = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-keyout", str(path), "-out", str(tmp_path / "cert.pem"), "-days", "1", "-subj", "/CN=hook",
               "-addext", "subjectAltName=IP:127.0.0.1,DNS:hooks.example"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


@pytest.fixture
def served(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def here(host: str, port: int) -> list[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


async def post(url: str) -> Answer:
    async with Egress(LOOPBACK, resolve=here) as egress:
        return await egress.post(url, b"{}", {}, 10)


async def test_a_self_signed_certificate_is_not_trusted(served: ssl.SSLContext) -> None:
    async with receiver(reply("200 OK"), tls=served) as there:
        answer = await post(f"https://127.0.0.1:{there.port}/")
    assert answer == Answer(None, error="the certificate is not trusted: self-signed certificate")
    assert there.heads == []


@pytest.mark.parametrize("host", ["127.0.0.1", "hooks.example"])
async def test_an_authority_of_the_operator_is_trusted_for_the_name_that_was_asked_for(
    host: str, served: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with receiver(reply("200 OK"), tls=served) as there:
        assert await post(f"https://{host}:{there.port}/") == Answer(200)


async def test_a_context_of_the_caller_is_the_one_that_decides(
    served: ssl.SSLContext, certificate: Path
) -> None:
    async with receiver(reply("200 OK"), tls=served) as there:
        context = ssl.create_default_context(cafile=certificate)
        async with Egress(LOOPBACK, ssl_context=context) as egress:
            assert await egress.post(there.url.replace("http:", "https:"), b"", {}, 10) == Answer(200)


async def test_a_certificate_for_another_name(
    served: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with receiver(reply("200 OK"), tls=served) as there:
        answer = await post(f"https://other.example:{there.port}/")
    assert answer.error
    assert answer.error.startswith("the certificate is not trusted: Hostname mismatch")
    assert there.heads == []


async def test_https_where_http_is_spoken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        posting = asyncio.create_task(post(f"https://127.0.0.1:{listening.getsockname()[1]}/"))
        accepted, _ = await asyncio.to_thread(listening.accept)
        with accepted:
            accepted.sendall(reply("400 Bad Request"))
            answer = await posting
    assert answer.error is not None
    assert answer.error.startswith("TLS failed: ")


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_authorities_that_cannot_be_read_stop_the_start(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "authorities.pem"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(SetupError, match="SSL_CERT_FILE: no certificates can be read"):
        Egress(LOOPBACK)
