"""Many chats in one question: the same texts as one by one, in order, in questions that have a limit."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from herder import prompts, rendering
from herder.errors import InvalidRequest
from herder.prompts import Chat, Renderer
from herder.protocol import ModelCard
from herder.rendering import render_many
from tests.integration.api import CARD, TEMPLATE

REFUSES = "{% if messages[0].content == 'no' %}{{ raise_exception('not this') }}{% endif %}{{ messages[0].content }}"


def card(template: str = TEMPLATE) -> ModelCard:
    return ModelCard(**{**CARD.__dict__, "template": template})


def chats(*texts: str) -> list[Chat]:
    return [Chat([{"role": "user", "content": text}]) for text in texts]


@pytest.fixture
async def renderer() -> AsyncIterator[Renderer]:
    renderer = Renderer()
    yield renderer
    await renderer.close()


async def test_many_are_as_one_by_one(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MANY_MAX", 3)
    monkeypatch.setattr(prompts, "MANY_CHARS_MAX", 20)
    asked = chats("a", "b", "ü" * 30, "", "c", "d", "e", "f", "x" * 19, "y" * 19)
    alone = [await renderer.text(card(), chat) for chat in asked]
    assert [text async for text in renderer.texts(card(), asked)] == alone


async def test_a_refused_chat_is_refused_alone(renderer: Renderer) -> None:
    told = [text async for text in renderer.texts(card(REFUSES), chats("yes", "no", "yes"))]
    assert (told[0], told[2]) == ("yes", "yes")
    assert isinstance(told[1], InvalidRequest)
    assert "not this" in told[1].detail


async def test_a_template_without_end_is_given_up(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "RENDER_S_MAX", 1.0)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    for told in ("took too long", "went past its limits"):
        with pytest.raises(InvalidRequest, match=told):
            await anext(renderer.texts(card(endless), chats("a", "b")))


def test_an_answer_holds_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "OUTPUT_CHARS_MAX", 100)
    given = [chat.asked() for chat in chats(*["x" * 40] * 5)]
    found = render_many("{{ messages[0].content }}", given, bos_token="", eos_token="")
    assert [len(each["text"]) for each in found] == [40, 40]
    given = [chat.asked() for chat in chats("x" * 90, "y" * 90)]
    (first,) = render_many("{{ messages[0].content }}", given, bos_token="", eos_token="")
    assert first["text"] == "x" * 90


async def test_what_does_not_fit_one_answer_is_asked_again(renderer: Renderer) -> None:
    """The child keeps its own limit, so that a template that writes a lot takes more than one question."""
    long = "{% for i in range(1000) %}{{ messages[0].content }}{% endfor %}"
    asked = chats(*[str(i) * 1_000 for i in range(6)])  # a million characters each
    told = [text async for text in renderer.texts(card(long), asked)]
    assert [(str(text)[0], len(str(text))) for text in told] == [(str(i), 10**6) for i in range(6)]
