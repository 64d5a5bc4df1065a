"""A batch as it is sent: both forms, options and overrides, and every fault named by its item or line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from herder.api.batch_reading import BatchAsk, batch_of_lines, batch_of_object, from_query
from herder.errors import BadRequest, HerderError, InvalidRequest
from herder.settings import Settings

SMALL: dict[str, Any] = {
    "batch_items_max": 4, "batch_upload_items_max": 6, "prompt_bytes_max": 50, "tokens_max": 100,
}  # fmt: skip


@pytest.fixture
def small(settings: Settings) -> Settings:
    return settings.model_copy(update=SMALL)


@pytest.fixture
def redis_url() -> str:
    """Nothing here needs one."""
    return "unix://none"


async def of_object(settings: Settings, value: Any, query: str = "", *, digest: bool = False) -> BatchAsk:
    body = bytearray(json.dumps(value).encode() if not isinstance(value, bytes) else value)
    pairs = [tuple(part.split("=", 1)) for part in query.split("&") if part]
    ask = await batch_of_object(body, pairs, settings, digest=digest)  # type: ignore[arg-type]
    ask.faults.refuse()
    return ask


async def of_lines(settings: Settings, text: str, query: str = "", *, digest: bool = False) -> BatchAsk:
    pairs = [tuple(part.split("=", 1)) for part in query.split("&") if part]
    ask = await batch_of_lines(bytearray(text.encode()), pairs, settings, digest=digest)  # type: ignore[arg-type]
    ask.faults.refuse()
    return ask


def faults(error: pytest.ExceptionInfo[HerderError]) -> dict[str, str]:
    return {fault["field"]: fault["message"] for fault in error.value.extra["errors"]}


async def test_what_an_item_leaves_out_is_taken_from_the_options(small: Settings) -> None:
    ask = await of_object(small, {
        "items": [
            {"prompt": "a"},
            {"prompt": "b", "tokens": 7, "temperature": 0.5, "stop": ["x"], "multiplier": 2, "raw": False,
             "model": "other", "seed": 3, "top_p": 0.5, "metadata": {"k": "v"}, "custom_id": "two"},
            {"messages": [{"role": "user", "content": "c"}]},
            {"prompt": "d", "tokens": None},
        ],
        "tokens": 5, "temperature": 1, "stop": "end", "multiplier": 1.5, "raw": True, "model": "one", "seed": 9,
        "top_p": 0.9, "metadata": {"of": "the batch"},
    })  # fmt: skip
    a, b, c, d = (draft.body for draft in ask.drafts)
    assert (a.tokens, a.temperature, a.stops, a.multiplier, a.raw, a.model, a.seed, a.top_p, a.metadata) == (
        5, 1.0, ("end",), 1500, True, "one", 9, 0.9, {},
    )  # fmt: skip
    assert (b.tokens, b.temperature, b.stops, b.multiplier, b.raw, b.model, b.seed, b.top_p, b.metadata) == (
        7, 0.5, ("x",), 2000, False, "other", 3, 0.5, {"k": "v"},
    )  # fmt: skip
    assert (c.raw, c.tokens, d.tokens, b.custom_id) == (False, 5, 5, "two")
    assert ask.options.metadata == {"of": "the batch"}


async def test_lines_and_prompts_are_the_same_batch(small: Settings) -> None:
    lines = await of_lines(
        small, '{"prompt":"a"}\r\n\n  \n{"prompt":"b"}', "tokens=5&multiplier=1.5&stop=x&stop=y&raw=true", digest=True
    )  # fmt: skip
    options = {"tokens": 5, "multiplier": 1.5, "stop": ["x", "y"], "raw": True}
    prompts = await of_object(small, {"prompts": ["a", "b"], **options}, digest=True)
    assert [d.body for d in lines.drafts] == [d.body for d in prompts.drafts]
    assert lines.digest == prompts.digest != ""
    assert [d.where for d in lines.drafts] == ["line 1", "line 4"]


@pytest.mark.parametrize(
    "change",
    [{"tokens": 6}, {"prompts": ["b", "a"]}, {"seed": 1}, {"charge": "as_many_as_affordable"}, {"max_fee": 9},
     {"metadata": {"k": "v"}}, {"webhook_url": "https://example.com/x"}],
)  # fmt: skip
async def test_another_meaning_is_another_digest(small: Settings, change: dict[str, Any]) -> None:
    body = {"prompts": ["a", "b"], "tokens": 5}
    first = await of_object(small, body, digest=True)
    same = await of_object(small, json.dumps(dict(reversed(body.items())), indent=3).encode(), digest=True)
    other = await of_object(small, body | change, digest=True)
    assert first.digest == same.digest != other.digest


async def test_a_repeated_custom_id_is_named_with_its_first_line(small: Settings) -> None:
    text = "\n".join(json.dumps({"custom_id": c, "prompt": "p"}) for c in ("a", "b", "a", "c", "b"))
    with pytest.raises(InvalidRequest) as refused:
        await of_lines(small, text, "tokens=5")
    assert refused.value.extra["errors"] == [
        {"field": "line 3: custom_id", "message": "is the same as in line 1"},
        {"field": "line 5: custom_id", "message": "is the same as in line 2"},
    ]
    with pytest.raises(InvalidRequest, match="item 1: custom_id: is the same as in item 0"):
        await of_object(small, {"items": [{"custom_id": "a", "prompt": "p"}] * 2, "tokens": 5})


async def test_every_fault_has_its_line(small: Settings) -> None:
    text = '{"prompt":"fine"}\n{"prompt":""}\nnope\n[1]\n{"prompt":"x","tokens":101}\n{"prompt":"x","fee":3}'
    with pytest.raises(InvalidRequest) as refused:
        await of_lines(small, text, "tokens=5")
    found = faults(refused)
    assert list(found) == ["line 2: prompt", "line 3", "line 4", "line 5: tokens", "line 6: fee"]
    assert "not JSON" in found["line 3"]
    assert found["line 4"] == "the line must be a JSON object"
    assert found["line 6: fee"] == "is for the whole batch, not for an item"


@pytest.mark.parametrize(
    ("item", "field", "message"),
    [
        ({}, "item 0", "prompt or messages is required"),
        ({"prompt": "x", "unknown": 1}, "item 0: unknown", "unknown field"),
        ({"prompt": "x" * 51}, "item 0", "the prompt has 51 bytes, HERDER_PROMPT_BYTES_MAX is 50"),
        ({"prompt": "x", "multiplier": 101}, "item 0: multiplier", "must be at most 100"),
        ({"prompt": "x", "tokens": "5"}, "item 0: tokens", "must be a whole number"),
        ({"prompt": "x", "webhook_url": "https://e.x"}, "item 0: webhook_url", "is for the whole batch"),
        ({"prompt": "x", "messages": [{"role": "user", "content": "c"}]}, "item 0: messages", "prompt and messages"),
        ({"prompt": "x", "custom_id": ""}, "item 0: custom_id", "must not be empty"),
        ("text", "item 0", "must be an object"),
        (None, "item 0", "must be an object"),
    ],
)  # fmt: skip
async def test_a_wrong_item(small: Settings, item: Any, field: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await of_object(small, {"items": [item], "tokens": 5})
    assert faults(refused)[field].startswith(message)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {"tokens": 5},
            "`prompts` or `items` is missing; JSON lines are sent with `Content-Type: application/jsonl`",
        ),
        ({"prompt": "a", "tokens": 5}, "is missing; JSON lines are sent with"),
        ({"prompts": ["a"], "items": [], "tokens": 5}, "exclude each other"),
        (
            {"prompts": ["a"], "tokens": 5, "multiplier": 0.5},
            "multiplier: must be 1 or more, and at most 100",
        ),
        (
            {"items": [{"prompt": "a", "multiplier": 0}], "tokens": 5},
            "multiplier: must be 1 or more, and at most 100",
        ),
        ({"prompts": [], "tokens": 5}, "something in it"),
        ({"prompts": "a", "tokens": 5}, "must be a list"),
        ({"prompts": [1], "tokens": 5}, "item 0: prompt: must be a string"),
        ({"prompts": ["a"]}, "item 0: tokens: is required"),
        ({"prompts": ["a"], "tokens": 5, "prompt": "b"}, "prompt: belongs into"),
        ({"prompts": ["a"], "tokens": 5, "max_fees": 3}, "max_fees: unknown field"),
        ({"prompts": ["a"], "tokens": 5, "multiplier": 101}, "multiplier: must be at most 100"),
        ({"prompts": ["a"], "tokens": 5, "multiplier": 2, "fee": 99}, "fee and multiplier exclude"),
        (
            {"items": [{"prompt": "a", "multiplier": 2}], "tokens": 5, "fee": 99},
            "item 0: multiplier: fee and mult",
        ),
        ({"prompts": ["a"], "tokens": 101}, "tokens: 101 is more than 100"),
        ({"prompts": ["a"], "tokens": 5, "webhook_per_item": True}, "webhook_per_item needs a webhook_url"),
        ({"prompts": ["a"], "tokens": 5, "charge": "some"}, "charge: must be"),
    ],
)
async def test_a_wrong_batch(small: Settings, body: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await of_object(small, body)
    assert told in refused.value.detail


async def test_too_many_are_refused_with_advice(small: Settings) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await of_object(small, {"prompts": ["a"] * 5, "tokens": 5})
    assert "5 prompts are more than 4 (HERDER_BATCH_ITEMS_MAX): upload JSON lines" in refused.value.detail
    assert "for up to 6" in refused.value.detail
    assert refused.value.extra["limit"] == 4
    assert len((await of_lines(small, '{"prompt":"a"}\n' * 6, "tokens=5")).drafts) == 6
    with pytest.raises(
        InvalidRequest, match=r"more than 6 \(HERDER_BATCH_UPLOAD_ITEMS_MAX\): send them as several"
    ):
        await of_lines(small, '{"prompt":"a"}\n' * 7, "tokens=5")


async def test_no_more_than_twenty_faults_are_told(settings: Settings) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await of_lines(settings, '{"prompt":""}\n' * 100, "tokens=5")
    assert len(refused.value.extra["errors"]) == 20


async def test_an_empty_upload_is_no_batch(small: Settings) -> None:
    with pytest.raises(InvalidRequest, match="at least one prompt"):
        await of_lines(small, "\n \n", "tokens=5")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("tokens=5&tokens=6", "tokens: is given twice"),
        ("tokens=five", "tokens: must be a whole number"),
        ("tokens=5&max_fees=3", "max_fees: unknown field"),
        ("tokens=5&raw=yes", "raw: must be true or false"),
        ("tokens=5&multiplier=1.0001", "multiplier: must have at most 3 decimals"),
    ],
)
async def test_a_wrong_query(small: Settings, query: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await of_lines(small, '{"prompt":"a"}', query)
    assert told in refused.value.detail


async def test_an_option_stands_in_one_place(small: Settings) -> None:
    ask = await of_object(small, {"prompts": ["a"]}, "tokens=5")
    assert ask.drafts[0].body.tokens == 5
    with pytest.raises(InvalidRequest, match="tokens: is given in the query and in the body"):
        await of_object(small, {"prompts": ["a"], "tokens": 5}, "tokens=5")


async def test_lines_that_are_not_said_to_be_lines_are_told_how_to_say_so(small: Settings) -> None:
    with pytest.raises(
        BadRequest, match=r"is not JSON: Extra data.*sent with `Content-Type: application/jsonl`"
    ):
        await of_object(small, b'{"prompt": "a"}\n{"prompt": "b"}\n')


def test_metadata_in_the_query_is_json() -> None:
    assert from_query([("metadata", '{"a":"b"}')]) == {"metadata": {"a": "b"}}
    with pytest.raises(BadRequest, match="metadata is not JSON"):
        from_query([("metadata", "a")])


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b"\xff", b'{"prompts":["\\ud800"]}', b'{"a":1,"a":2}', b"[" * 9_999]
)
async def test_what_is_no_json_object(small: Settings, body: bytes) -> None:
    with pytest.raises((BadRequest, InvalidRequest)):
        await of_object(small, body)
