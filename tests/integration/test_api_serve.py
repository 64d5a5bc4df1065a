"""The herder as a server: a stop that keeps nobody waiting, TLS, and settings that cannot work."""

from __future__ import annotations

import resource
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from herder import serve
from herder.apikeys import key_secret
from herder.app import create_app
from herder.broker import connect
from herder.errors import SetupError
from herder.ledger import Ledger
from herder.serve import server
from herder.settings import Settings
from tests.integration.api import STATS, WORKER
from tests.integration.live import live


def ask(url: str, key: str, verify: ssl.SSLContext | bool = True) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"X-API-Key": key}, verify=verify, trust_env=False, timeout=60)


def test_a_prompt_over_a_socket_is_answered_while_somebody_waits(settings: Settings) -> None:
    with live(settings) as herder, ask(herder.url, herder.key) as client:
        job = client.post("/v1/jobs", json={"prompt": "hello", "tokens": 5}).json()
        done = client.get(f"/v1/jobs/{job['id']}", params={"wait": 30}).json()
        assert (done["status"], done["result"]["text"]) == ("succeeded", "blue")
        assert client.get("/v1/account").json()["held"] == 0
        assert STATS.slots == client.get("/info").json()["slots"], WORKER


def test_a_stop_lets_long_polls_go_with_their_job_as_it_is(settings: Settings) -> None:
    with ThreadPoolExecutor(1) as pool:
        with live(settings, worker=False) as herder, ask(herder.url, herder.key) as client:
            job = client.post("/v1/jobs", json={"prompt": "hello", "tokens": 5}).json()
            waiting = pool.submit(httpx.get, f"{herder.url}/v1/jobs/{job['id']}?wait=60",
                                  headers={"X-API-Key": herder.key}, timeout=60, trust_env=False)  # fmt: skip
            while "herder_long_polls 1.0" not in client.get("/metrics").text:
                pass
        assert waiting.result(10).json()["status"] == "queued"


def test_a_body_over_the_cap_is_answered_over_a_socket_too(settings: Settings) -> None:
    with live(settings) as herder, ask(herder.url, herder.key) as client:
        reply = client.post("/v1/jobs", content=b"x" * 6_000_000)
        assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
        assert client.get("/v1/account").status_code == 200


def test_tls(settings: Settings, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-keyout", str(key), "-out", str(certificate), "-days", "1", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=IP:127.0.0.1"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with live(settings.model_copy(update={"tls_cert": certificate, "tls_key": key})) as herder:
        assert herder.url.startswith("https://")
        with ask(herder.url, herder.key, trusting) as client:
            assert client.get("/v1/account").status_code == 200


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"redis_url": ""}, "HERDER_REDIS_URL"),
        ({"tls_cert": Path("nowhere.pem")}, "belong together"),
        ({"tls_cert": Path("nowhere.pem"), "tls_key": Path("nowhere.pem")}, "no file nowhere.pem"),
    ],
)
def test_settings_that_cannot_work_stop_the_start(
    settings: Settings, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(SetupError, match=says):
        server(settings.model_copy(update=changes))


async def test_an_app_whose_herd_has_lost_its_key_secret_writes_nothing(settings: Settings) -> None:
    broker = await connect(settings)
    try:
        async with create_app(settings).router.lifespan_context(FastAPI()):
            (settings.data_dir / "key-secret").unlink()  # no account yet: it was made, and may be made again
        async with create_app(settings).router.lifespan_context(FastAPI()):
            secret = key_secret(settings)
        await Ledger(broker, secret).create_account("ann")
        lost = settings.model_copy(update={"data_dir": settings.data_dir / "other", "fee_per_token": 7})
        with pytest.raises(SetupError, match="put key-secret back there"):
            async with create_app(lost).router.lifespan_context(FastAPI()):
                pass
        assert not lost.data_dir.exists()
        assert (await broker.prices()).fee_per_token == settings.fee_per_token != 7
        given = lost.model_copy(update={"key_secret": SecretStr(secret.decode())})
        async with create_app(given).router.lifespan_context(FastAPI()):
            assert (await broker.prices()).fee_per_token == 7
    finally:
        await broker.close()


def test_a_system_that_refuses_more_descriptors_does_not_stop_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """macOS says that there is no limit, and refuses to have none."""

    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    serve._many_connections()
