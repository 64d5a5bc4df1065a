"""The `ollama` package."""

from __future__ import annotations

import json

import ollama
from checking import BUSY_KEY, BUSY_URL, KEY, MODEL, POOR_KEY, URL, WRONG_KEY, at_once, check, main, raises


def _client(key: str = KEY, url: str = URL) -> ollama.Client:
    return ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"})


client = _client()
ASK = [{"role": "user", "content": "What is a llama?"}]


def _status(status: int, key: str = KEY, url: str = URL, model: str = MODEL, length: int = 8) -> None:
    error = raises(
        ollama.ResponseError, lambda: _client(key, url).chat(model, ASK, options={"num_predict": length})
    )
    assert isinstance(error, ollama.ResponseError)
    assert error.status_code == status, error


@check("completion")
def completion() -> None:
    found = client.generate(MODEL, "Once upon a time", options={"num_predict": 12})
    assert isinstance(found.response, str)
    assert found.done
    assert found.eval_count <= 12


@check("chat")
def chat() -> None:
    found = client.chat(MODEL, ASK, options={"num_predict": 12})
    assert found.message.role == "assistant"


@check("stream")
def stream() -> None:
    parts = list(client.chat(MODEL, ASK, options={"num_predict": 12}, stream=True))
    whole = client.chat(MODEL, ASK, options={"num_predict": 12})
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert parts[-1].done


@check("stop")
def stop() -> None:
    free = client.generate(MODEL, "Once upon a time", raw=True, options={"num_predict": 30}).response
    word = free.split()[1]
    options = {"num_predict": 30, "stop": [word]}
    found = client.generate(MODEL, "Once upon a time", raw=True, options=options)
    assert found.response == free.partition(word)[0]
    assert found.done_reason == "stop"


@check("typed")
def typed() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    found = client.chat(MODEL, ASK, format=schema, options={"num_predict": 40})
    assert isinstance(json.loads(found.message.content)["age"], int)


@check("20 at once")
def twenty() -> None:
    assert (
        len(at_once(lambda i: client.generate(MODEL, f"Number {i}", options={"num_predict": 8}).response))
        == 20
    )


@check("models")
def models() -> None:
    assert any(each.model.startswith(MODEL) for each in client.list().models)
    assert client.show(MODEL).modelinfo


@check("400")
def bad_request() -> None:
    error = raises(
        ollama.ResponseError, lambda: client.generate(MODEL, "x", options={"num_predict": 100_000})
    )
    assert isinstance(error, ollama.ResponseError)
    assert error.status_code in (400, 422)


@check("401")
def wrong_key() -> None:
    _status(401, key=WRONG_KEY)


@check("402")
def no_credits() -> None:
    _status(402, key=POOR_KEY)


@check("404")
def no_model() -> None:
    _status(404, model="no-such-model")


@check("429")
def too_many() -> None:
    _status(429, key=BUSY_KEY, url=BUSY_URL)


main()
