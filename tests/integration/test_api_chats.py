"""System prompts, named templates and tools through the API: what the worker reads, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from herder.api.chats import JSON_DEPTH_MAX, TOOLS_BYTES_MAX, TOOLS_MAX
from herder.settings import Settings
from tests.integration.api import CARD, MODEL, WORKER, Front, open_front, problem

TOOL = {"type": "function", "function": {"name": "add", "description": "sums", "parameters": {"const": 0.5}}}
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
HI: dict[str, Any] = {"role": "user", "content": "hi"}


async def served(front: Front, template: str | None) -> None:
    """The model has this template."""
    await front.worker(replace(CARD, template=template))


async def read(front: Front) -> str:
    """What the worker reads of the next job."""
    return (await front.lease()).brief.prompt


async def submit(front: Front, **body: Any) -> None:
    reply = await front.client.post("/v1/jobs", json={"tokens": 5, **body})
    assert reply.status_code == 202, reply.text


async def refused(front: Front, says: str, **body: Any) -> None:
    before = await front.balances()
    document = problem(
        await front.client.post("/v1/jobs", json={"tokens": 5, **body}), 422, "invalid_request"
    )
    assert says in document["detail"], document
    assert await front.balances() == before


# --- system and template ---------------------------------------------------------------------------------------


async def test_a_system_prompt_is_the_first_turn(front: Front) -> None:
    await submit(front, prompt="hi", system="Be brief.")
    assert await read(front) == "<system>Be brief.</system><user>hi</user><assistant>"
    await submit(front, messages=[HI], system="Be brief.")
    assert await read(front) == "<system>Be brief.</system><user>hi</user><assistant>"


async def test_a_system_prompt_has_one_place(front: Front) -> None:
    chat = [{"role": "system", "content": "a"}, HI]
    await refused(front, "system and a system message exclude each other", messages=chat, system="b")
    await refused(front, "raw and system exclude each other", prompt="hi", system="b", raw=True)
    await served(front, None)
    await refused(front, "has no chat template: name one", prompt="hi", system="b")


async def test_a_template_without_a_system_role_says_so(front: Front) -> None:
    says = "System role not supported"
    await served(front, "{{ raise_exception('" + says + "') if messages[0].role == 'system' }}{{ messages }}")
    await refused(front, says, prompt="hi", system="b")


async def test_a_model_without_a_template_is_asked_with_a_named_one(front: Front) -> None:
    await served(front, None)
    await submit(front, prompt="hi", system="Be brief.", template="llama-2")
    assert await read(front) == "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nhi [/INST]", "the model adds <s>"
    await submit(front, prompt="hi", template="chatml")
    assert await read(front) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    await submit(front, prompt="hi")
    assert await read(front) == "hi"
    await refused(front, "roles must alternate", messages=[HI, HI], template="llama-2")
    await refused(front, "template", prompt="hi", template="llama-3")
    await refused(front, "raw and template exclude each other", prompt="hi", template="llama-2", raw=True)


async def test_a_prompt_that_was_rendered_by_its_caller_has_one_start_token(front: Front) -> None:
    await submit(front, prompt="<s>[INST] hi [/INST]", raw=True)
    assert await read(front) == "[INST] hi [/INST]"


# --- tools -----------------------------------------------------------------------------------------------------


async def test_tools_are_given_to_a_template_that_takes_them(front: Front) -> None:
    calls = "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    template = "{{ tools | tojson }}" + TURNS.replace("{% endfor %}", calls + "{% endfor %}")
    await served(front, template)
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1.5}}}
    chat = [
        HI,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]
    await submit(front, messages=chat, tools=[TOOL])
    text = await read(front)
    assert text == f"{json.dumps([TOOL])}[user]hi[assistant]None{json.dumps([call])}[tool]2"
    await submit(front, prompt="hi", tools=[TOOL])
    assert await read(front) == f"{json.dumps([TOOL])}[user]hi"


async def test_tools_are_never_dropped(front: Front) -> None:
    await refused(front, "takes no tools", prompt="hi", tools=[TOOL])
    await refused(front, "takes no tools", prompt="hi", tools=[TOOL], template="llama-2")
    await refused(front, "raw and tools exclude each other", prompt="hi", tools=[TOOL], raw=True)
    await served(front, None)
    await refused(front, "has no chat template", prompt="hi", tools=[TOOL])
    await served(front, TURNS)
    call = {"function": {"name": "add", "arguments": "{}"}}
    chat = [HI, {"role": "assistant", "content": "", "tool_calls": [call]}, HI]
    await refused(front, "leaves tool_calls out", messages=chat)


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ([], "tools"),
        ([TOOL] * (TOOLS_MAX + 1), "tools"),
        ([{**TOOL, "type": "retrieval"}], "tools.0.type"),
        ([{**TOOL, "more": 1}], "tools.0.more"),
        ([{"type": "function", "function": {"name": "no spaces"}}], "tools.0.function.name"),
        ([{"type": "function", "function": {"name": "a", "parameters": []}}], "tools.0.function.parameters"),
        (
            [{"type": "function", "function": {"name": "a", "parameters": nested(JSON_DEPTH_MAX + 1)}}],
            "tools.0.function.parameters",
        ),
        (
            [{"type": "function", "function": {"name": "a", "parameters": {"a": "\x00"}}}],
            "tools.0.function.parameters",
        ),
        ([{"type": "function", "function": {"name": "a", "description": "x" * TOOLS_BYTES_MAX}}], "tools"),
    ],
)
async def test_tools_have_one_shape(front: Front, tools: list[Any], field: str) -> None:
    reply = await front.client.post("/v1/jobs", json={"prompt": "hi", "tokens": 5, "tools": tools})
    document = problem(reply, 422, "invalid_request")
    assert any(error["field"].startswith(field) for error in document["errors"]), document


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "assistant"}, "content"),
        ({"role": "tool", "tool_call_id": "c1"}, "content"),
        (
            {"role": "user", "content": "a", "tool_calls": [{"function": {"name": "a", "arguments": {}}}]},
            "tool_calls",
        ),
        ({"role": "user", "content": "a", "tool_call_id": "c1"}, "tool_call_id"),
        ({"role": "assistant", "tool_calls": []}, "tool_calls"),
    ],
)
async def test_turns_have_the_fields_of_their_role(front: Front, message: dict[str, Any], field: str) -> None:
    reply = await front.client.post("/v1/jobs", json={"messages": [HI, message], "tokens": 5})
    document = problem(reply, 422, "invalid_request")
    assert any(error["field"].startswith(f"messages.1.{field}") for error in document["errors"]), document


# --- batches ---------------------------------------------------------------------------------------------------


async def prompts_of(front: Front, body: dict[str, Any]) -> list[str]:
    """What the worker reads of a batch's items."""
    reply = await front.client.post("/v1/batches", json=body)
    assert reply.status_code == 202, reply.text
    found: list[str] = []
    async with front.herd.bell.listen(front.herd.broker.keys("queue_bell", MODEL)) as line:
        while len(found) < len(body["items"]):
            taken = await front.herd.broker.lease(WORKER, MODEL, slots=9, kv_free=10**6, kv_total=10**6)
            found += [lease.brief.prompt for lease in taken]
            if not taken:
                await line.next(1)
    return found


async def test_items_take_over_what_the_batch_says(front: Front) -> None:
    items = [
        {"prompt": "a"}, {"prompt": "b", "system": "own"}, {"prompt": "c", "template": "chatml"},
        {"messages": [{"role": "system", "content": "first"}, HI]},
    ]  # fmt: skip
    prompts = await prompts_of(front, {"items": items, "tokens": 1, "system": "all"})
    assert prompts == [
        "<system>all</system><user>a</user><assistant>",
        "<system>own</system><user>b</user><assistant>",
        "<|im_start|>system\nall<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n",
        "<system>first</system><user>hi</user><assistant>",
    ]


async def test_lines_take_tools_from_the_query(front: Front) -> None:
    await served(front, "{{ tools | tojson }}" + TURNS)
    kind = {"Content-Type": "application/jsonl"}
    query = {"tokens": "1", "system": "all", "tools": json.dumps([TOOL])}
    lines = b'{"prompt": "a"}\n'
    reply = await front.client.post("/v1/batches", content=lines, params=query, headers=kind)
    assert reply.status_code == 202, reply.text
    for wrong in ("[", "7", json.dumps([TOOL]) + ',"more":[]'):
        query["tools"] = wrong
        reply = await front.client.post("/v1/batches", content=lines, params=query, headers=kind)
        assert reply.status_code in {400, 422}, reply.text


async def test_an_item_whose_tools_would_be_dropped_is_named(front: Front) -> None:
    body = {"items": [{"prompt": "a"}, {"prompt": "b", "tools": [TOOL]}], "tokens": 5}
    document = problem(await front.client.post("/v1/batches", json=body), 422, "invalid_request")
    assert "item 1" in document["detail"]
    assert "takes no tools" in document["detail"]


async def test_a_long_system_prompt_is_not_multiplied_without_end(settings: Settings) -> None:
    small = settings.model_copy(update={"batch_bytes_max": 20_000})
    async with open_front(small) as front:
        body = {"prompts": ["a"] * 30, "tokens": 1, "system": "x" * 1_000}
        document = problem(await front.client.post("/v1/batches", json=body), 422, "invalid_request")
        assert "HERDER_BATCH_BYTES_MAX" in document["detail"]
