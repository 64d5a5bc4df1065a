"""The `huggingface_hub` package's InferenceClient."""

from __future__ import annotations

import json
from typing import Any

from checking import BUSY_KEY, BUSY_URL, KEY, POOR_KEY, URL, WRONG_KEY, at_once, check, main, raises
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

client: Any = InferenceClient(URL, token=KEY)
ASK = [{"role": "user", "content": "What is a llama?"}]


def _status(status: int, key: str = KEY, url: str = URL, **options: object) -> None:
    other: Any = InferenceClient(url, token=key)
    error = raises(HfHubHTTPError, lambda: other.chat_completion(ASK, **{"max_tokens": 8, **options}))
    assert isinstance(error, HfHubHTTPError)
    assert error.response.status_code == status, error


@check("completion")
def completion() -> None:
    assert isinstance(client.text_generation("Once upon a time", max_new_tokens=12), str)
    details = client.text_generation("Once upon a time", max_new_tokens=12, details=True)
    assert details.details.generated_tokens == len(details.details.tokens)


@check("chat")
def chat() -> None:
    found = client.chat_completion(ASK, max_tokens=12)
    assert found.choices[0].message.role == "assistant"


@check("stream")
def stream() -> None:
    said = "".join(
        c.choices[0].delta.content or "" for c in client.chat_completion(ASK, max_tokens=12, stream=True)
    )
    assert said == client.chat_completion(ASK, max_tokens=12).choices[0].message.content
    pieces = list(client.text_generation("Once upon a time", max_new_tokens=12, stream=True))
    assert "".join(pieces) == client.text_generation("Once upon a time", max_new_tokens=12)


@check("stop")
def stop() -> None:
    free = client.text_generation("Once upon a time", max_new_tokens=30)
    word = free.split()[1]
    found = client.text_generation("Once upon a time", max_new_tokens=30, stop=[word])
    assert found.startswith(free.partition(word)[0])
    assert len(found) < len(free)


@check("typed")
def typed() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema}}
    found = client.chat_completion(ASK, max_tokens=40, response_format=form)
    assert isinstance(json.loads(found.choices[0].message.content)["age"], int)


@check("20 at once")
def twenty() -> None:
    assert len(at_once(lambda i: client.text_generation(f"Number {i}", max_new_tokens=8))) == 20


@check("models")
def models() -> None:
    endpoint: Any = InferenceClient(URL, provider="hf-inference", token=KEY)
    assert endpoint.get_endpoint_info(model=URL)["model_id"]
    assert endpoint.health_check(model=URL)


@check("400")
def bad_request() -> None:
    _status(400, max_tokens=100_000)


@check("401")
def wrong_key() -> None:
    _status(401, key=WRONG_KEY)


@check("402")
def no_credits() -> None:
    _status(402, key=POOR_KEY)


@check("404")
def no_model() -> None:
    other: Any = InferenceClient(base_url=f"{URL}/v1", api_key=KEY)
    error = raises(HfHubHTTPError, lambda: other.chat_completion(ASK, model="no/such-model", max_tokens=8))
    assert isinstance(error, HfHubHTTPError)
    assert error.response.status_code == 404


@check("429")
def too_many() -> None:
    _status(429, key=BUSY_KEY, url=BUSY_URL)


main()
