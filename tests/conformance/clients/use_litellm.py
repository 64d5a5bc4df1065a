"""The `litellm` package."""

from __future__ import annotations

import json

import litellm
from checking import BUSY_KEY, BUSY_URL, KEY, MODEL, POOR_KEY, URL, WRONG_KEY, at_once, check, main, raises

ASK = [{"role": "user", "content": "What is a llama?"}]


def _ask(key: str = KEY, url: str = URL, model: str = MODEL, **options: object) -> litellm.ModelResponse:
    return litellm.completion(
        f"openai/{model}",
        ASK,
        api_base=f"{url}/v1",
        api_key=key,
        num_retries=0,
        **{"max_tokens": 12, **options},
    )


def _text(prompt: str | list[str], **options: object) -> litellm.TextCompletionResponse:
    return litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", prompt=prompt, api_base=f"{URL}/v1", api_key=KEY, **options
    )


@check("completion")
def completion() -> None:
    assert isinstance(_text("Once upon a time", max_tokens=12).choices[0].text, str)


@check("chat")
def chat() -> None:
    assert _ask().choices[0].message.role == "assistant"


@check("stream")
def stream() -> None:
    said = "".join(chunk.choices[0].delta.content or "" for chunk in _ask(stream=True))
    assert said == _ask().choices[0].message.content


@check("stop")
def stop() -> None:
    free = _ask(max_tokens=30).choices[0].message.content
    word = free.split()[1]
    assert (
        _ask(max_tokens=30, stop=[word]).choices[0].message.content.rstrip()
        == free.partition(word)[0].rstrip()
    )


@check("typed")
def typed() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema, "strict": True}}
    found = _ask(max_tokens=40, response_format=form)
    assert isinstance(json.loads(found.choices[0].message.content)["age"], int)


@check("20 at once")
def twenty() -> None:
    assert len({each.id for each in at_once(lambda _: _ask())}) == 20


@check("list of 20")
def list_of_twenty() -> None:
    found = _text([f"Number {i}" for i in range(20)], max_tokens=8)
    assert len(found.choices) == 20


@check("400")
def bad_request() -> None:
    raises(litellm.BadRequestError, lambda: _ask(max_tokens=100_000))


@check("401")
def wrong_key() -> None:
    raises(litellm.AuthenticationError, lambda: _ask(WRONG_KEY))


@check("402")
def no_credits() -> None:
    error = raises(Exception, lambda: _ask(POOR_KEY))
    assert "credits" in str(error), error


@check("404")
def no_model() -> None:
    raises(litellm.NotFoundError, lambda: _ask(model="no/such-model"))


@check("429")
def too_many() -> None:
    raises(litellm.RateLimitError, lambda: _ask(BUSY_KEY, BUSY_URL))


main()
