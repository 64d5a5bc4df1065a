"""The `langchain-openai` package."""

from __future__ import annotations

import openai
from checking import BUSY_KEY, BUSY_URL, KEY, MODEL, POOR_KEY, URL, WRONG_KEY, check, main, raises
from langchain_openai import ChatOpenAI, OpenAI

AGE = {"title": "Age", "type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"],
       "additionalProperties": False}  # fmt: skip


def _chat(key: str = KEY, url: str = URL, model: str = MODEL, length: int = 12) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=key, max_tokens=length, max_retries=0)


def _text(length: int = 12) -> OpenAI:
    return OpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=KEY, max_tokens=length, max_retries=0)


@check("completion")
def completion() -> None:
    assert isinstance(_text().invoke("Once upon a time"), str)


@check("chat")
def chat() -> None:
    found = _chat().invoke("What is a llama?")
    assert isinstance(found.content, str)
    assert found.usage_metadata["output_tokens"] <= 12


@check("stream")
def stream() -> None:
    said = "".join(chunk.content for chunk in _chat().stream("What is a llama?"))
    assert said == _chat().invoke("What is a llama?").content


@check("stop")
def stop() -> None:
    free = _text(30).invoke("Once upon a time")
    word = free.split()[1]
    assert _text(30).invoke("Once upon a time", stop=[word]) == free.partition(word)[0]


@check("typed")
def typed() -> None:
    found = _chat(length=40).with_structured_output(AGE, method="json_schema").invoke("How old are you?")
    assert isinstance(found["age"], int)


@check("20 at once")
def twenty() -> None:
    found = _chat().batch([f"Number {i}" for i in range(20)], config={"max_concurrency": 20})
    assert len(found) == 20


@check("list of 20")
def list_of_twenty() -> None:
    found = _text(8).generate([f"Number {i}" for i in range(20)])
    assert len(found.generations) == 20


@check("400")
def bad_request() -> None:
    raises(openai.BadRequestError, lambda: _chat(length=100_000).invoke("x"))


@check("401")
def wrong_key() -> None:
    raises(openai.AuthenticationError, lambda: _chat(WRONG_KEY).invoke("x"))


@check("402")
def no_credits() -> None:
    error = raises(openai.APIStatusError, lambda: _chat(POOR_KEY).invoke("x"))
    assert "credits" in str(error), error


@check("404")
def no_model() -> None:
    raises(openai.NotFoundError, lambda: _chat(model="no/such-model").invoke("x"))


@check("429")
def too_many() -> None:
    raises(openai.RateLimitError, lambda: _chat(BUSY_KEY, BUSY_URL).invoke("x"))


main()
