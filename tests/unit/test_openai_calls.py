"""OpenAI's tools: calls in what a model wrote, schemas of calls, turns for templates without tools, bodies."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.dialects.openai_bodies import ChatBody, chat_fields
from herder.dialects.openai_calls import CALLS_MAX, CallsApart, calls_in
from herder.dialects.openai_tools import format_of, toolbox_of
from herder.dialects.openai_turns import turns_of, with_tools
from herder.errors import InvalidRequest
from herder.schemas import tree_from

NAMES = ("weather", "now")
CALL = '{"name": "weather", "arguments": {"city": "Rome"}}'
ROME = ("weather", {"city": "Rome"})


def found(text: str, names: tuple[str, ...] = NAMES) -> tuple[str, list[tuple[str, Any]]]:
    """The text and the calls of a whole answer."""
    rest, calls = calls_in(text, names)
    return rest, [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL, ("", [ROME])),
        (f"\n {CALL}\n", ("", [ROME])),
        ('{"name": "weather", "parameters": {"city": "Rome"}}', ("", [ROME])),
        ('{"name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}', ("", [ROME])),
        ('{"type": "function", "function": ' + CALL + "}", ("", [ROME])),
        ('{"name": "now"}', ("", [("now", {})])),
        (f"[{CALL}, {CALL}]", ("", [ROME, ROME])),
        (f"<tool_call>\n{CALL}\n</tool_call>", ("", [ROME])),
        (f"<tool_call>{CALL}", ("", [ROME])),
        (f"I look.\n<tool_call>{CALL}</tool_call> <tool_call>{CALL}</tool_call>", ("I look.\n", [ROME, ROME])),
        (f"<tool_call>{CALL}</tool_call> There.", ("There.", [ROME])),
    ],
)  # fmt: skip
def test_calls_in_the_forms_that_templates_document(text: str, expected: Any) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Blue.",
        "  \n",
        '{"city": "Rome"}',
        '{"name": "other", "arguments": {}}',
        '{"name": ["weather"], "arguments": {}}',
        '{"name": "weather", "arguments": 3}',
        '{"name": "weather", "arguments": "no JSON"}',
        '{"name": "weather", "arguments": {"x": 1e999}}',
        '{"name": "weather", "arguments": {"x": "\\ud800"}}',
        '{"name": "weather", "arguments"',
        f"{CALL} and more",
        "<tool_call>no JSON</tool_call>",
        f"<tool_call>{CALL}</tool_call><tool_call>no</tool_call>",
        "<tool_cal",
        "a < b, <tool",
        "[]",
        "[" * 5_000,
        "[" + ",".join([CALL] * (CALLS_MAX + 1)) + "]",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert found(text) == (text, [])
    assert found(CALL, ()) == (CALL, []), "and without tools everything does"


PIECES = st.lists(
    st.sampled_from(["<tool_call>", "</tool_call>", CALL, "<tool", "_call>", "{", " ", "a", "\n", "["])
)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_calls_are_the_same_however_the_answer_is_cut(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    apart = CallsApart(NAMES)
    told = "".join(apart.feed(text[a:b]) for a, b in pairwise(places))
    rest, calls = apart.end()
    assert (told + rest, calls) == calls_in(text, NAMES)
    if not calls:
        assert told + rest == text


def test_a_mark_may_be_cut_anywhere() -> None:
    text = f"I look. <tool_call>{CALL}</tool_call>"
    for cut in range(len(text)):
        apart = CallsApart(NAMES)
        told = apart.feed(text[:cut]) + apart.feed(text[cut:])
        rest, calls = apart.end()
        assert (told + rest, [call.name for call in calls]) == ("I look. ", ["weather"]), cut


# --- tools -----------------------------------------------------------------------------------------------------

CITY = {
    "type": "object",
    "$defs": {"City": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "properties": {"city": {"$ref": "#/$defs/City"}},
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY, "x": 1}},
    {"type": "function", "function": {"name": "now", "parameters": None}},
]


def _schema(choice: Any, given: Any = None) -> dict[str, Any] | None:
    form = format_of(toolbox_of(TOOLS, choice, given), given)
    if form is None:
        return None
    schema: dict[str, Any] = form["json_schema"]["schema"]
    tree_from(schema, "schema")
    return schema


def test_a_call_that_must_be_made_is_a_schema_whose_references_lead_somewhere() -> None:
    assert _schema("none") is _schema("auto") is _schema(None) is None
    named = _schema({"type": "function", "function": {"name": "weather"}})
    assert named is not None
    assert named["properties"]["name"] == {"const": "weather"}
    assert (
        named["properties"]["arguments"]["properties"]["city"]["$ref"] == "#/properties/arguments/$defs/City"
    )
    either = _schema("required")
    assert either is not None
    assert [each["properties"]["name"]["const"] for each in either["anyOf"]] == ["weather", "now"]
    place = "#/anyOf/0/properties/arguments/$defs/City"
    assert either["anyOf"][0]["properties"]["arguments"]["properties"]["city"]["$ref"] == place


def test_a_form_beside_tools_may_be_filled_or_a_tool_be_called() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    schema = _schema("auto", form)
    assert schema is not None
    assert len(schema["anyOf"]) == 3
    assert schema["anyOf"][2]["properties"]["city"]["$ref"] == "#/anyOf/2/$defs/City"
    assert len(_schema("auto", {"type": "json_object"})["anyOf"]) == 3  # type: ignore[index]
    assert len(_schema("required", form)["anyOf"]) == 2  # type: ignore[index]
    assert format_of(toolbox_of(TOOLS, "none", form), form) == form


@pytest.mark.parametrize(
    ("tools", "choice", "field"),
    [
        ("x", None, "tools"),
        (["x"], None, "tools.0.type"),
        ([{"type": "retrieval"}], None, "tools.0.type"),
        ([{"type": "function"}], None, "tools.0.function"),
        ([{"type": "function", "function": {}}], None, "tools.0.function.name"),
        ([TOOLS[0], TOOLS[0]], None, "tools.1.function.name"),
        ([{"type": "function", "function": {"name": "a b"}}], None, "tools.0.function.name"),
        ([{"type": "function", "function": {"name": f"f{i}"}} for i in range(65)], None, "tools"),
        (None, "required", "tool_choice"),
        (TOOLS, "must", "tool_choice"),
        (TOOLS, {"type": "function", "function": {"name": "other"}}, "tool_choice"),
        (TOOLS, {"type": "allowed_tools"}, "tool_choice"),
        (TOOLS, 3, "tool_choice"),
        ([{"type": "function", "function": {"name": "a", "parameters": {"pattern": "x"}}}], "required",
         "tools.0.function.parameters.pattern"),
        *(([{"type": "function", "function": {"name": "a", "parameters": each}}], "required",
           "tools.0.function.parameters") for each in ({"type": "string"}, {"const": 5}, {"enum": ["a"]})),
    ],
)  # fmt: skip
def test_tools_that_cannot_be(tools: Any, choice: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        toolbox_of(tools, choice)
    assert error.value.extra["errors"][0]["field"] == field
    assert field in error.value.detail


# --- turns -----------------------------------------------------------------------------------------------------

CALLED = {
    "id": "c1",
    "type": "function",
    "index": 0,
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
HISTORY: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "name": "bob", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALLED, CALLED], "refusal": None, "audio": None},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "warm"}]},
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": None},
]  # fmt: skip


def test_messages_as_turns() -> None:
    turns = turns_of(HISTORY)
    assert [turn["role"] for turn in turns] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
        "assistant",
    ]
    assert [turn["content"] for turn in turns] == ["Be brief.", "a\nb", None, "sunny", "warm", "So?", ""]
    assert turns[2]["tool_calls"][0] == {
        "id": "c1", "type": "function", "function": CALLED["function"],
    }  # fmt: skip
    assert turns[3]["tool_call_id"] == "c1"
    assert "name" not in turns[1]
    box = toolbox_of(TOOLS, None)
    assert with_tools(turns, box, "{% if tools %}") == (turns, list(box.tools))
    assert with_tools(turns, toolbox_of(None, None), "{% if tools %}") == (turns, None)


def test_a_template_without_tools_is_told_of_them_in_words() -> None:
    turns, tools = with_tools(turns_of(HISTORY), toolbox_of(TOOLS, None), "{% for m in messages %}")
    assert tools is None
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant"]
    told = turns[0]["content"]
    assert told.startswith("Be brief.\n\n")
    assert '"name": "weather"' in told
    assert '<tool_call>{"name": …, "arguments": {…}}</tool_call>' in told
    assert found(turns[2]["content"]) == ("", [ROME, ROME])
    assert turns[3]["content"] == (
        "<tool_response>sunny</tool_response>\n<tool_response>warm</tool_response>\nSo?"
    )
    alone, _ = with_tools(turns_of(HISTORY[1:2]), toolbox_of(TOOLS, None), "")
    assert [turn["role"] for turn in alone] == ["user"]
    assert alone[0]["content"].endswith("\n\na\nb")
    answer, _ = with_tools(turns_of(HISTORY[6:]), toolbox_of(TOOLS, None), "")
    assert [turn["role"] for turn in answer] == ["system", "assistant"]


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (None, "messages"),
        ([], "messages"),
        (["x"], "messages.0"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages.0.content.0"),
        ([{"role": "user", "content": ["x"]}], "messages.0.content.0"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], "messages.0.content.0.text"),
        ([{"role": "assistant", "function_call": {}}], "messages.0.function_call"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages.0.tool_calls"),
        ([{"role": "assistant", "tool_calls": [3]}], "messages.0.tool_calls.0.function"),
    ],
)
def test_messages_that_cannot_be(messages: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        turns_of(messages)
    assert error.value.extra["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("body", "temperature"),
    [
        ({}, None),
        ({"temperature": 0.7}, 0.7),
        ({"n": 2}, 1),
        ({"n": 2, "temperature": 0}, 0),
        ({"top_p": 0.5}, 1),
        ({"top_p": 1, "n": 1}, None),
        ({"top_p": 0}, 0),
    ],
)
def test_greedy_unless_asked_otherwise(body: dict[str, Any], temperature: float | None) -> None:
    fields, _ = chat_fields(ChatBody(messages=[{"role": "user", "content": "a"}], **body), None)
    assert fields["temperature"] == temperature
    assert fields["top_p"] == (body.get("top_p") or None)


def test_what_theirs_has_and_ours_has_not() -> None:
    body = ChatBody(messages=[{"role": "user", "content": "a"}], seed=-1, stop=[], metadata={"a": "b", "c": 3},
                    max_tokens=5, max_completion_tokens=7, logprobs=True)  # fmt: skip
    fields, box = chat_fields(body, None)
    assert (fields["seed"], fields["stop"], fields["metadata"]) == (2**32 - 1, None, {"a": "b"})
    assert (fields["tokens"], fields["logprobs"], box.names) == (7, 0, ())


def test_a_body_that_is_nested_too_deeply_is_refused() -> None:
    deep: Any = {}
    for _ in range(900):
        deep = {"default": deep}
    tools = [{"type": "function", "function": {"name": "a", "parameters": deep}}]
    with pytest.raises(InvalidRequest):
        chat_fields(
            ChatBody(messages=[{"role": "user", "content": "a"}], tools=tools, tool_choice="required"), None
        )
