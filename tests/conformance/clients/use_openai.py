"""The `openai` package."""

from __future__ import annotations

import json

import openai
from checking import BUSY_KEY, BUSY_URL, KEY, MODEL, POOR_KEY, URL, WRONG_KEY, at_once, check, main, raises

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
ASK = [{"role": "user", "content": "What is a llama?"}]


def _refused(
    status: int, kind: type[openai.APIStatusError], key: str = KEY, url: str = URL, **body: object
) -> None:
    other = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    error = raises(
        kind,
        lambda: other.chat.completions.create(**{"model": MODEL, "messages": ASK, "max_tokens": 8, **body}),
    )
    assert isinstance(error, openai.APIStatusError)
    assert error.status_code == status, error
    assert error.code, error.body


@check("completion")
def completion() -> None:
    found = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=12)
    assert isinstance(found.choices[0].text, str)
    assert found.usage.completion_tokens <= 12
    assert found.choices[0].finish_reason in ("stop", "length")


@check("chat")
def chat() -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=12)
    found = raw.parse()
    assert found.choices[0].message.role == "assistant"
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert raw.headers["x-herder-job-id"].startswith("job_")


@check("stream")
def stream() -> None:
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=ASK, max_tokens=12, stream=True, stream_options=options
        )
    )
    whole = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=12)
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content
    assert [c.choices[0].delta.role for c in chunks if c.choices].count("assistant") == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    text = list(client.completions.create(model=MODEL, prompt="Once", max_tokens=8, stream=True))
    assert text[-1].choices[0].finish_reason in ("stop", "length")


@check("stop")
def stop() -> None:
    free = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=30).choices[0].text
    word = free.split()[1]
    found = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=30, stop=[word])
    assert found.choices[0].text == free.partition(word)[0]
    assert found.choices[0].finish_reason == "stop"


@check("typed")
def typed() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema, "strict": True}}
    found = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=40, response_format=form)
    assert isinstance(json.loads(found.choices[0].message.content)["age"], int)


@check("tools")
def tools() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
                  "additionalProperties": False}  # fmt: skip
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        found = client.chat.completions.create(
            model=MODEL, messages=ASK, max_tokens=120, tools=[tool], tool_choice=choice
        )
        (call,) = found.choices[0].message.tool_calls
        assert found.choices[0].finish_reason == "tool_calls"
        assert call.function.name == "weather"
        assert isinstance(json.loads(call.function.arguments)["city"], str)


@check("20 at once")
def twenty() -> None:
    found = at_once(lambda i: client.completions.create(model=MODEL, prompt=f"Number {i}", max_tokens=8))
    assert len({each.id for each in found}) == 20


@check("list of 20")
def list_of_twenty() -> None:
    prompts = [f"Number {i}" for i in range(20)]
    found = client.completions.create(model=MODEL, prompt=prompts, max_tokens=8)
    assert [choice.index for choice in found.choices] == list(range(20))
    alone = client.completions.create(model=MODEL, prompt=prompts[7], max_tokens=8)
    assert found.choices[7].text == alone.choices[0].text


@check("models")
def models() -> None:
    assert MODEL in [each.id for each in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


@check("400")
def bad_request() -> None:
    _refused(400, openai.BadRequestError, max_tokens=0)
    _refused(400, openai.BadRequestError, max_tokens=100_000)


@check("401")
def wrong_key() -> None:
    _refused(401, openai.AuthenticationError, key=WRONG_KEY)


@check("402")
def no_credits() -> None:
    _refused(402, openai.APIStatusError, key=POOR_KEY)


@check("404")
def no_model() -> None:
    _refused(404, openai.NotFoundError, model="no/such-model")


@check("429")
def too_many() -> None:
    _refused(429, openai.RateLimitError, key=BUSY_KEY, url=BUSY_URL)


main()
