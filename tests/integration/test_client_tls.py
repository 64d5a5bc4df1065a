"""The client and TLS: which certificates it trusts, and what it says about one that it does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

import llama_herder
from herder.settings import Settings
from llama_herder import AsyncHerder, Herder
from llama_herder.cli.app import execute
from tests.integration.live import live


@pytest.fixture
def secured(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a herder with a certificate for 127.0.0.1 that nobody knows."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-keyout", str(key), "-out", str(certificate), "-days", "1", "-subj", "/CN=herd",
               "-addext", "subjectAltName=IP:127.0.0.1"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return settings.model_copy(update={"tls_cert": certificate, "tls_key": key})


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


async def test_a_private_certificate_is_trusted_on_loopback_and_proxies_are_ignored(
    secured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with live(secured) as herder:
        monkeypatch.setenv("SSL_CERT_FILE", str(secured.tls_cert))
        with Herder(herder.url, herder.key, tries=1) as client:
            assert client.run("hello", tokens=4).text == "blue"
        async with AsyncHerder(herder.url, herder.key, tries=1) as there:
            assert (await there.account()).id == "fuzz"


async def test_an_unknown_certificate_is_called_one_and_not_tried_again(
    secured: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with live(secured) as herder:
        async with AsyncHerder(herder.url, herder.key, tries=10**9) as client:
            with pytest.raises(llama_herder.CannotConnect, match="its certificate is not trusted"):
                await client.account()
        assert execute(["run", "hello", "--tokens", "4", "--url", herder.url, "--key", herder.key]) == 6
    shown = capsys.readouterr().err
    assert "set SSL_CERT_FILE to a PEM file" in shown
    assert "is a herd running there" not in shown
    assert shown.count("\n") == 1


def test_a_certificate_for_another_host(secured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.tls_cert))
    with live(secured) as herder:
        url = herder.url.replace("127.0.0.1", "localhost")
        with Herder(url, tries=1) as client, pytest.raises(llama_herder.CannotConnect, match="another host"):
            client.info()


def test_https_where_http_is_spoken(settings: Settings) -> None:
    with live(settings) as herder:
        url = herder.url.replace("http", "https")
        with Herder(url, tries=1) as client, pytest.raises(llama_herder.CannotConnect, match="TLS failed"):
            client.info()
        assert httpx.get(f"{herder.url}/healthz", trust_env=False).status_code == 200


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_one_line(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert execute(["info"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: SSL_CERT_FILE: cannot read '{path}': ")
    assert shown.count("\n") == 1
