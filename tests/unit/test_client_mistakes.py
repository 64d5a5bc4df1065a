"""What a caller gets who passes the wrong thing: what was given, what is wanted, an example; nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

import llama_herder
from llama_herder import AsyncHerder, Chat, Herder

Mistake = Callable[[Any], object]


def unasked(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"{request.url} was asked")


@pytest.fixture
def herder() -> Herder:
    return Herder("http://herd.example", "hk", transport=httpx.MockTransport(unasked))


MISTAKES: list[tuple[Mistake, str]] = [
    (lambda h: h.chat("hi"), r'^messages must be a list of messages such as \[{"role": .*, not a str$'),
    (lambda h: Chat(h, messages="hi"), r"^messages must be a list of messages such as .*, not a str$"),  # type: ignore[arg-type]
    (lambda h: h.chat(["hi"]), r"not a list with other things than messages$"),
    (lambda h: h.run(5, 4), r"^the prompt must be text, or a list of messages such as .*, not an int$"),
    (lambda h: h.run("hi", 4, stop=5), r"^stop must be text, or a list of texts such as .*, not an int$"),
    (lambda h: h.run("hi", 4, stop={"a": 1}), r"^stop must be text, .*, not a dict$"),
    (lambda h: h.batch(["hi"], 4, stop=5), r"^stop must be text, .*, not an int$"),
    (
        lambda h: h.submit("hi", 4, idempotency_key=5),
        r"^idempotency_key must be text, such as .*, not an int$",
    ),
    (lambda h: h.batch(["hi"], 4, idempotency_key=5), r"^idempotency_key must be text, .*, not an int$"),
    (lambda h: h.wait(5), r"^a job, a batch or its id is needed, not an int$"),
    (lambda h: h.wait("job_1", "5"), r"^timeout must be a number of seconds, or None, not a str$"),
    (lambda h: h.batch("hi"), r"^a batch is a list of prompts such as .*, not a str$"),
    (
        lambda h: h.generate("hi", output_type={"a": {"b": set}}),
        r'^output_type\.a\.b must be int, .*, for instance {"age": "int"}, not set$',
    ),
    (
        lambda h: h.generate("hi", output_type={"a": [object()]}),
        r"^output_type\.a must be int, .*, not <object",
    ),
    (lambda h: h.generate("hi", output_type=set), r'^output_type must be like {"age": "int"}, or a class'),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_a_wrong_argument_is_told_before_anything_is_sent(
    herder: Herder, mistake: Mistake, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        mistake(herder)
    herder.close()


@pytest.mark.parametrize("kind", [Herder, AsyncHerder])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"api_key": 5}, r'^api_key must be text such as "hk_…", or None, not an int$'),
        ({"url": b"http://a"}, r'^url must be text such as "http://127.0.0.1:8080", or None, not a bytes$'),
        ({"tries": "5"}, r"^tries must be a whole number such as 5, not a str$"),
        ({"timeout": "5"}, r"^timeout must be a number of seconds, or None, not a str$"),
    ],
)
def test_a_client_of_something_else_is_told(
    kind: type[Herder | AsyncHerder], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        kind(**given)


def test_the_default_client_says_the_same(herder: Herder) -> None:
    llama_herder.set_default_herder(herder)
    try:
        with pytest.raises(TypeError, match=r"^messages must be a list of messages such as "):
            llama_herder.chat("hi")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^multiplier must be a number such as 1\.1, not a str$"):
            llama_herder.run("hi", 4, multiplier="2")  # type: ignore[call-overload]
    finally:
        llama_herder.set_default_herder(None)
    herder.close()


NAN, INF = float("nan"), float("inf")
HOLDS_ITSELF: list[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)
ODD: list[tuple[Mistake, str]] = [
    (lambda h: h.run("hi", 4, multiplier=NAN), "multiplier must be a finite number, not nan"),
    (lambda h: h.run("hi", 4, fee=INF), "fee must be a finite number, not inf"),
    (lambda h: h.quote("hi", 4, max_fee=-INF), "max_fee must be a finite number, not -inf"),
    (lambda h: h.run("hi", 4, metadata={"a": [1, NAN]}), "metadata.a.1 must be a finite number, not nan"),
    (lambda h: h.batch(["hi"], 4, multiplier=NAN), "multiplier must be a finite number, not nan"),
    (lambda h: h.batch(["hi"] * 10_001, 4, multiplier=NAN), "multiplier must be a finite number, not nan"),
    (
        lambda h: h.batch([{"prompt": "hi"}] * 10_000 + [{"prompt": "hi", "multiplier": NAN}], 4),
        "items.10000.multiplier must be a finite number, not nan",
    ),
    (
        lambda h: h.run("hi", 4, metadata={"a": HOLDS_ITSELF}),
        "this cannot be sent as JSON: Circular reference detected",
    ),
    (
        lambda h: h.run("hi", 4, metadata={NAN: 1}),
        "this cannot be sent as JSON: Out of range float values are not JSON compliant",
    ),
]


@pytest.mark.parametrize(("mistake", "words"), ODD)
def test_a_number_that_is_none_is_named_before_anything_is_sent(
    herder: Herder, mistake: Mistake, words: str
) -> None:
    with pytest.raises(llama_herder.InvalidRequest) as caught:
        mistake(herder)
    assert caught.value.detail.startswith(words)
    herder.close()


@pytest.mark.parametrize("field", ["multiplier", "fee", "max_fee"])
def test_so_it_is_by_the_default_client(herder: Herder, field: str) -> None:
    llama_herder.set_default_herder(herder)
    try:
        with pytest.raises(llama_herder.InvalidRequest, match=f"^{field} must be a finite number, not nan$"):
            llama_herder.run("hi", 4, **{field: NAN})  # type: ignore[call-overload]
    finally:
        llama_herder.set_default_herder(None)
    herder.close()
