"""What the pages that this herd grew from show with systems of their own, as the same calls of our library and CLI.

Those with clients over HTTP (Lamini's, Text Generation Inference's) are in `tests/conformance`, with the real packages;
the examples of the pages in `test_examples`, the module in `test_modules`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import llama_herder
from tests.e2e.herd import DEMO, Up, clean_environment, herd, until

STORY = "A small llama"  # so the tiny model begins, which is greedy where nothing else is asked for
MEANING = "The meaning of life is"


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with herd() as running:
        yield running
        running.stop()


@pytest.fixture(autouse=True)
def _environment(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where module-level functions find the herd."""
    monkeypatch.setenv("HERDER_URL", up.url)
    monkeypatch.setenv("HERDER_API_KEY", up.keys[DEMO])


def test_llama_run_with_a_prompt_and_a_number_of_tokens() -> None:
    """`Llama.run("Write a story in 10 words or less.", 10)`, which prints the answer."""
    assert llama_herder.run("Write a story in 10 words or less.", 10).startswith(STORY)


@pytest.mark.parametrize("offer", [{"fee": 100}, {"multiplier": 1.1}, {}])
def test_llama_run_with_a_callback_and_an_offer(offer: dict[str, Any]) -> None:
    """`Llama.run("What is the meaning of life?", 20, function(text) … end, {Fee = 100, Multiplier = 1.1})`."""
    there, texts = threading.Event(), []

    def told(generated_text: str) -> None:
        texts.append(generated_text)
        there.set()

    llama_herder.run("What is the meaning of life?", 20, told, **offer)
    assert there.wait(60)
    (text,) = texts
    assert text.startswith(MEANING)


def test_the_command_prints_the_answer(up: Up) -> None:
    """The same at a terminal."""
    environment = clean_environment() | {name: os.environ[name] for name in ("HERDER_URL", "HERDER_API_KEY")}
    command = [
        sys.executable,
        "-m",
        "llama_herder.cli.main",
        "run",
        "Write a story in 10 words or less.",
        "--tokens",
        "10",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(STORY)


def test_a_transfer_that_pays_by_the_formula_is_answered(up: Up) -> None:
    """`ao.send({Action = 'Info'})`, then `ao.send({Action = 'Transfer', Quantity = Fee, ['X-Prompt'] = …, …})` with
    `Fee = (FeePerToken * Tokens) + SetPromptFee`."""
    with httpx.Client(base_url=up.url, headers={"Authorization": f"Bearer {up.keys[DEMO]}"}) as client:

        def send(message: dict[str, str]) -> httpx.Response:
            return client.post("/ao/messages", json=message)

        (info,) = send({"Target": "wh5vB2IbqmIBUqgodOaTvByNFDPr73gbUq1bVOUtCrw", "Action": "Info"}).json()[
            "messages"
        ]
        fee = int(info["Token-Fee"]) * 10 + int(info["Base-Fee"])
        reply = send({
            "Target": "xU9zFkq3X2ZQ6olwNVvr1vUWIjc3kXTWr7xKQD6dh10",
            "Action": "Transfer",
            "Recipient": "wh5vB2IbqmIBUqgodOaTvByNFDPr73gbUq1bVOUtCrw",
            "Quantity": str(fee),
            "X-Prompt": "What is the meaning of life?",
            "X-Tokens": "10",
            "X-Reference": "1",
        })  # fmt: skip
        assert reply.status_code == 202, reply.text

        def answers() -> list[dict[str, str]]:
            found: list[dict[str, str]] = client.get("/ao/messages", params={"for": "1"}).json()["messages"]
            return found

        (answer,) = until(answers, "the answer is there")
    assert answer["Action"] == "Inference-Response"
    assert answer["Data"].startswith(MEANING)


def test_a_text_is_gone_on_with_and_a_chat_answered(up: Up) -> None:
    """`llm('Text')['choices'][0]['text']`, `llm.create_chat_completion(history)['choices'][0]['message']`."""
    with httpx.Client(
        base_url=up.url, headers={"Authorization": f"Bearer {up.keys[DEMO]}"}, timeout=60
    ) as client:
        result = client.post("/v1/completions", json={"prompt": "Text", "max_tokens": 16}).json()
        assert isinstance(result["choices"][0]["text"], str)
        history = [
            {"role": "system", "content": "You spell in an unintelligibly strong British accent."},
            {"role": "user", "content": "Write a recursive factorial function in Python."},
        ]
        body = {"messages": history, "max_tokens": 40}
        response = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
        assert response["role"] == "assistant"
        history.append(response)  # it includes the role already, and is taken back as it is
        history.append({"role": "user", "content": "Write a recursive factorial function in Haskell"})
        again = client.post("/v1/chat/completions", json={"messages": history, "max_tokens": 40})
        assert again.status_code == 200, again.text
