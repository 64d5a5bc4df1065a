"""Chat templates, kind and hostile; the bounds of what fits; the child that renders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder import prompts
from herder.child import Child, ChildFailed
from herder.errors import InvalidRequest
from herder.prompts import Chat, Renderer, bounds, kv_estimate, without_doubled_bos
from herder.protocol import ModelCard
from herder.rendering import TemplateError, render

CHATML = """{% for message in messages %}
{% if loop.first and message['role'] != 'system' %}
{{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' -}}
{% endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{% endfor %}
{% if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' -}}
{% endif %}
"""
HELLO = Chat([{"role": "user", "content": "Hé <b>"}])


def card(template: str | None, *, adds_bos: bool = True, context: int = 512) -> ModelCard:
    return ModelCard("toy", context, 257, 8, template, "<s>", "</s>", adds_bos)


def rendered(template: str) -> str:
    return render(
        template, HELLO.messages, bos_token="<s>", eos_token="</s>", date=datetime(2026, 7, 26, tzinfo=UTC)
    )


def test_a_template_is_rendered_as_hugging_face_does() -> None:
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHé <b><|im_end|>\n<|im_start|>assistant\n"
    )
    assert rendered(CHATML) == expected


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>Hé <b></s>"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hé <b>"}]'),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2026"),
        ("{% for m in messages %}{% break %}{% endfor %}end", "end"),
        ("{% if tools %}tools{% else %}none{% endif %}{{ custom_tools is defined }}", "noneFalse"),
        ("  {%- set ns = namespace(n=1) -%} {% set ns.n = ns.n + 1 %}{{ ns.n }}", "2"),
    ],
)
def test_the_conventions(template: str, text: str) -> None:
    # Behind it the turn itself, which no template may leave out.
    assert rendered(template + "|{{ messages[0].content }}") == text + "|Hé <b>"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "refused"),
        ("{{ messages[7].content }}", "refused"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.clear() }}", "unsafe"),
        ("{{ messages[0].update(x=1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "failed"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{% for i in range(10**9) %}{% endfor %}", "failed"),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "writes more than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "failed"),
    ],
)
def test_what_a_template_may_not_do(template: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        rendered(template)


def test_a_start_token_is_not_doubled() -> None:
    assert without_doubled_bos("<s>hi", card(None)) == "hi"
    assert without_doubled_bos("<s>hi", card(None, adds_bos=False)) == "<s>hi"
    assert without_doubled_bos("hi<s>", card(None)) == "hi<s>"


@given(st.integers(min_value=0, max_value=10**7), st.integers(min_value=0, max_value=64))
def test_the_bounds_hold_for_the_shortest_and_the_longest_pieces(length: int, longest: int) -> None:
    found = bounds(length, ModelCard("toy", 512, 257, longest, None, "", "", True))
    assert found.least <= found.most
    assert found.least * max(longest, 1) >= length
    assert found.most >= length + 1, "a start token may come on top of one token a byte"


@pytest.mark.parametrize(
    ("length", "counted", "tokens", "cells"),
    [(300, None, 50, 158), (300, 70, 50, 120), (9_000, None, 50, 512)],
)
def test_the_estimate_of_kv_cells(length: int, counted: int | None, tokens: int, cells: int) -> None:
    assert kv_estimate(length, counted, tokens, 512) == cells


# --- in the child ------------------------------------------------------------------------------------------


@pytest.fixture
async def renderer() -> AsyncIterator[Renderer]:
    renderer = Renderer()
    yield renderer
    await renderer.close()


async def test_the_child_renders_and_refuses(renderer: Renderer) -> None:
    assert await renderer.text(card("{{ bos_token }}{{ messages[0].content }}"), HELLO) == "Hé <b>"
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        await renderer.text(card("{{ raise_exception('roles must alternate') }}"), HELLO)
    with pytest.raises(InvalidRequest, match="no chat template"):
        await renderer.text(card(None), HELLO)


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' * 10**10 }}",
        "{{ '%9999999999d' % 3 }}",
        "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    ],
)
async def test_a_memory_bomb_costs_one_request(renderer: Renderer, bomb: str) -> None:
    with pytest.raises(InvalidRequest):
        await renderer.text(card(bomb), HELLO)
    assert await renderer.text(card("{{ messages[0].content }}"), HELLO) == "Hé <b>"


async def test_a_template_that_never_ends_is_killed_and_not_tried_again(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer._child, "_limit_s", 0.3)
    endless = card("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    with pytest.raises(InvalidRequest, match="too long"):
        await renderer.text(endless, HELLO)
    starts = renderer._child.starts
    with pytest.raises(InvalidRequest, match="past its limits"):
        await renderer.text(endless, HELLO)
    assert renderer._child.starts == starts
    assert await renderer.text(card("fine {{ messages[0].content }}"), HELLO) == "fine Hé <b>"
    assert prompts.RENDER_S_MAX <= 5


async def test_a_chat_that_takes_too_long_is_in_the_way_of_no_smaller_one(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many templates take the square of the turns: whoever sends most must not close a model to the others."""
    monkeypatch.setattr(renderer._child, "_limit_s", 0.5)
    monkeypatch.setattr(prompts, "RENDER_S_MAX", 0.5)
    square = card(
        "{% for m in messages %}{% for n in messages %}{% for o in messages %}{% set x = o %}{% endfor %}"
        "{% endfor %}{% endfor %}{{ messages[0].content }}"
    )
    many = Chat(HELLO.messages * 900)
    with pytest.raises(InvalidRequest, match="too long"):
        await renderer.text(square, many)
    starts = renderer._child.starts
    with pytest.raises(InvalidRequest, match="past its limits"):
        await renderer.text(square, many)
    assert renderer._child.starts == starts
    assert await renderer.text(square, HELLO) == "Hé <b>"
    assert [text async for text in renderer.texts(square, [HELLO, HELLO])] == ["Hé <b>"] * 2
    with pytest.raises(InvalidRequest, match="past its limits"):
        await renderer.text(square, many)


async def test_a_child_that_cannot_start_or_dies_is_an_error_not_a_hang() -> None:
    child = Child("herder.no_such_module", limit_s=5)
    with pytest.raises(ChildFailed):
        await child.ask({"op": "render"})
    await child.close()


async def test_a_cancelled_question_does_not_leave_its_answer_to_the_next(renderer: Renderer) -> None:
    first, second = card("first {{ messages[0].content }}"), card("second {{ messages[0].content }}")
    await renderer.text(second, HELLO)
    for _ in range(5):
        asking = asyncio.create_task(renderer.text(first, HELLO))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await renderer.text(second, HELLO) == "second Hé <b>"
