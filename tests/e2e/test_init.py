"""A herd whose workers wait for a model: an admin's `Init` chooses it, a wrong one is told, a heir keeps it."""

from __future__ import annotations

from typing import Any

import httpx

from herder.waiting import Waiting
from tests.e2e.herd import Up, herd, until


def init(up: Up, model: str) -> httpx.Response:
    """The admin's message to whichever worker waits."""
    body = {"Target": "llama-herder", "Action": "Init", "Model-ID": model}
    headers = {"Authorization": f"Bearer {up.keys['admin']}"}
    return httpx.post(f"{up.url}/ao/messages", json=body, headers=headers, timeout=90, trust_env=False)


def test_a_worker_without_a_model_is_given_one_and_its_heir_keeps_it() -> None:
    with herd(model="", wait_s_max=60, slots=1) as up:
        assert any("wait for a model" in line for line in up.lines)
        pid = up.pid_of("worker-1")
        wrong = init(up, "nothing.gguf")
        assert wrong.status_code == 422
        assert "no such file" in wrong.json()["detail"]
        up.until_restarted("worker-1", pid)
        until(lambda: up.ask(lambda broker: Waiting(broker).those()), "it waits again")
        served: dict[str, Any] = init(up, "mine=herd-tiny").json()
        assert [each["Action"] for each in served["messages"]] == ["Worker-Initialized"]
        assert served["messages"][0]["Model"] == "mine"
        with up.client() as client:
            assert client.run("What is a chatbot?", 4).result is not None
        up.until_restarted("worker-1", up.kill("worker-1"))
        with up.client() as client:
            assert client.run("What is a chatbot?", 4).result is not None
        assert [each.model for each in up.ask(lambda broker: broker.worker_states())] == ["mine"]
        up.stop()


def test_a_digest_that_is_not_on_the_list_is_refused_here_too() -> None:
    with herd(model="", wait_s_max=60, model_sha256="0" * 64) as up:
        wrong = init(up, "herd-tiny")
        assert wrong.status_code == 422
        assert "SHA-256" in wrong.json()["detail"]
        up.stop()
