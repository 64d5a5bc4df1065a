"""Ollama's API: answers whole and in lines, what is asked for and what is refused, and what there is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from herder.protocol import FinishReason, Lease, Outcome
from herder.settings import Settings
from tests.integration.api import CARD, MODEL, Front
from tests.integration.streaming import serving
from tests.integration.tokenwise import WAIT_S, Hand, token

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def generating(front: Front, **body: Any) -> asyncio.Task[httpx.Response]:
    """A prompt on its way."""
    return asyncio.create_task(front.client.post("/api/generate", json={"prompt": "hello", **body}))


def chatting(front: Front, **body: Any) -> asyncio.Task[httpx.Response]:
    """A chat on its way."""
    return asyncio.create_task(front.client.post("/api/chat", json={"messages": HELLO, **body}))


async def served(
    front: Front, request: asyncio.Task[httpx.Response], *pieces: str
) -> tuple[Lease, httpx.Response]:
    """The worker answers; what it was given, and what came of it."""
    hand = Hand(front.herd.broker)
    lease = await hand.lease()
    for piece in pieces:
        await hand.say(lease, piece, token(piece))
    await hand.settle(lease, "".join(pieces))
    return lease, await asyncio.wait_for(request, WAIT_S)


def lines_of(reply: httpx.Response) -> list[dict[str, Any]]:
    """What each line says."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].partition(";")[0] == "application/x-ndjson"
    assert reply.text.endswith("\n")
    return [json.loads(line) for line in reply.text[:-1].split("\n")]


async def test_an_answer_streams_unless_it_is_asked_not_to(front: Front) -> None:
    lease, reply = await served(front, generating(front, model="toy:latest"), "bl", "ue")
    *said, last = lines_of(reply)
    assert [(line["response"], line["done"]) for line in said] == [("bl", False), ("ue", False)]
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"], last["model"]) == (5, 2, "toy:latest")
    assert lease.brief.prompt == "<user>hello</user><assistant>"
    assert reply.headers["x-herder-job-id"] == lease.job_id


async def test_an_answer_in_one_object_with_the_times_that_it_took(front: Front) -> None:
    lease, reply = await served(front, generating(front, stream=False), "blue")
    shown = reply.json()
    assert (shown["response"], shown["done"], shown["done_reason"]) == ("blue", True, "stop")
    record = await front.herd.broker.job(lease.job_id)
    assert record is not None
    assert record.ended_ms is not None
    assert shown["total_duration"] == (record.ended_ms - record.submitted_ms) * 1_000_000
    assert sum(shown[name] for name in DURATIONS[1:]) == shown["total_duration"]
    assert shown["created_at"].endswith("Z")
    assert reply.headers["x-herder-balance"] == str((await front.balances())[0])


@pytest.mark.parametrize("stream", [True, False])
async def test_chats(front: Front, stream: bool) -> None:
    lease, reply = await served(front, chatting(front, stream=stream), "blue")
    first = lines_of(reply)[0] if stream else reply.json()
    assert first["message"] == {"role": "assistant", "content": "blue"}
    assert first["done"] is not stream
    assert lease.brief.prompt == "<user>hello</user><assistant>"


async def test_the_options_are_ollamas_with_its_defaults(front: Front) -> None:
    lease, _ = await served(front, generating(front), "blue")
    how = lease.brief.sampling
    assert (how.temperature, how.top_k, how.top_p, how.repeat_penalty) == (0.8, 40, 0.9, 1.1)
    options = {
        "num_predict": 9, "temperature": 0, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.7, "seed": 1 << 32,
        "repeat_penalty": 1, "repeat_last_n": -1, "frequency_penalty": 0.5, "presence_penalty": 0.25, "stop": "x",
        "num_ctx": 2048, "mirostat": 2,
    }  # fmt: skip
    lease, _ = await served(front, generating(front, options=options), "blue")
    how = lease.brief.sampling
    assert (lease.tokens, lease.brief.stop, how.temperature, how.top_k, how.top_p) == (9, ("x",), 0, 3, 0.5)
    assert (how.min_p, how.typical_p, how.seed, how.repeat_penalty, how.penalty_tokens) == (
        0.1,
        0.7,
        0,
        1,
        4096,
    )
    assert (how.frequency_penalty, how.presence_penalty) == (0.5, 0.25)
    lease, _ = await served(front, generating(front, options={"num_predict": -1}), "blue")
    assert lease.tokens == 256


async def test_a_system_prompt_and_a_raw_one(front: Front) -> None:
    lease, _ = await served(front, generating(front, system="be brief"), "blue")
    assert lease.brief.prompt == "<system>be brief</system><user>hello</user><assistant>"
    lease, _ = await served(front, generating(front, raw=True, system="is not used"), "blue")
    assert lease.brief.prompt == "hello"


@pytest.mark.parametrize("form", ["json", {"type": "object", "properties": {}}])
async def test_a_format_is_kept_to(front: Front, form: Any) -> None:
    lease, reply = await served(front, chatting(front, format=form, stream=False), "{}")
    assert lease.brief.schema is not None
    assert reply.json()["message"]["content"] == "{}"


async def test_calls_of_tools(front: Front) -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    _, reply = await served(front, chatting(front, tools=[TOOL], stream=False), "Well. ", call)
    message = reply.json()["message"]
    assert message["tool_calls"] == [{"function": {"name": "add", "arguments": {"a": 1}}}]
    _, reply = await served(front, chatting(front, tools=[TOOL]), "Well. ", call)
    said = lines_of(reply)
    assert said[0]["message"]["content"].strip() == "Well."
    assert [line["message"].get("tool_calls") for line in said][-2] == message["tool_calls"]
    messages = [*HELLO, {**message, "content": ""}, {"role": "tool", "content": "3", "tool_name": "add"}]
    lease, _ = await served(front, chatting(front, messages=messages, tools=[TOOL]), "3")
    assert "<tool_response>3</tool_response>" in lease.brief.prompt


async def test_the_log_probabilities_come_with_their_tokens(front: Front) -> None:
    _, reply = await served(front, generating(front, logprobs=True), "bl", "ue")
    told = [line.get("logprobs") for line in lines_of(reply)]
    assert told == [[{"token": text, "logprob": -0.5, "top_logprobs": []}] for text in ("bl", "ue")] + [None]
    _, reply = await served(front, generating(front, logprobs=True, stream=False), "bl", "ue")
    assert reply.json()["logprobs"] == [*told[0], *told[1]]


async def test_thoughts_are_told_apart_unless_nobody_wants_them(front: Front) -> None:
    thinks = (
        "{% for m in messages %}{% if '</think>' in m.content %}{% endif %}{{ m.content }}{% endfor %}<a>"
    )
    await front.worker(replace(CARD, template=thinks))
    for think, thought in ((None, "hm"), (True, "hm"), (False, None)):
        _, reply = await served(front, chatting(front, think=think, stream=False), "<think>hm</think>blue")
        message = reply.json()["message"]
        assert (message["content"], message.get("thinking")) == ("blue", thought)
        _, reply = await served(front, chatting(front, think=think), "<think>h", "m</think>bl", "ue")
        messages = [line["message"] for line in lines_of(reply)]
        assert "".join(message["content"] for message in messages) == "blue"
        assert "".join(message.get("thinking", "") for message in messages) == (thought or "")


async def test_without_a_prompt_it_is_asked_whether_the_model_is_there(front: Front) -> None:
    reply = await front.client.post("/api/generate", json={"model": MODEL, "keep_alive": "5m"})
    (said,) = lines_of(reply)
    assert (said["done"], said["done_reason"], said["response"]) == (True, "load", "")
    reply = await front.client.post("/api/chat", json={"model": MODEL, "messages": [], "stream": False})
    assert (reply.json()["done_reason"], reply.json()["message"]["content"]) == ("load", "")
    for named, shown in (({}, MODEL), ({"model": ""}, MODEL), ({"model": "toy:latest"}, "toy:latest")):
        reply = await front.client.post("/api/generate", json={**named, "prompt": "", "stream": False})
        assert reply.json()["model"] == shown
    assert await front.balances() == (1000, 0)


async def test_a_worker_that_dies_and_a_job_that_fails(front: Front) -> None:
    hand, request = Hand(front.herd.broker), generating(front)
    first = await hand.lease()
    await hand.say(first, "blue s", token("blue s"))
    await hand.die(first)
    second = await hand.lease()
    await hand.say(second, "blue sky", token("blue sky"))
    await hand.settle(second, "blue sky", reason=FinishReason.LENGTH)
    said = lines_of(await asyncio.wait_for(request, WAIT_S))
    assert [line["response"] for line in said] == ["blue s", "ky", ""]
    assert said[-1]["done_reason"] == "length"
    before, request = await front.balances(), generating(front)
    await hand.settle(await hand.lease(), "", outcome=Outcome.FAILED)
    (failed,) = lines_of(await asyncio.wait_for(request, WAIT_S))
    assert "it broke" in failed["error"]
    assert await front.balances() == before


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_that_goes_away_gets_the_rest_back(settings: Settings, stream: bool) -> None:
    async with serving(settings) as herder:
        before = await herder.herd.ledger.account("alice")
        async with herder.client() as client:
            body = {"messages": HELLO, "stream": stream}
            request = asyncio.create_task(client.post("/api/chat", json=body))
            lease = await Hand(herder.herd.broker).lease()
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        record = await herder.herd.broker.job(lease.job_id)
        while record is not None and not record.cancel_requested:
            record = await herder.herd.broker.job(lease.job_id)
        await Hand(herder.herd.broker).die(lease)
        assert await herder.herd.ledger.account("alice") == before


@pytest.mark.parametrize(
    ("path", "body", "status", "names"),
    [
        ("generate", {"prompt": 1}, 422, "prompt"),
        ("generate", {"prompt": "x", "template": "y"}, 422, "template"),
        ("generate", {"prompt": "x", "images": ["y"]}, 422, "images"),
        ("generate", {"prompt": "x", "suffix": "y"}, 422, "suffix"),
        ("generate", {"prompt": "x", "context": [1]}, 422, "context"),
        ("generate", {"prompt": "x", "format": "xml"}, 422, "format"),
        ("generate", {"prompt": "x", "format": {"type": "zzz"}}, 422, "format.type: "),
        ("generate", {"prompt": "x", "options": {"num_predict": "9"}}, 422, "options.num_predict"),
        ("generate", {"prompt": "x", "options": {"temperature": 9}}, 422, "options.temperature"),
        ("generate", {"prompt": "x", "options": {"stop": 0}}, 422, "options.stop"),
        ("generate", {"prompt": "x", "options": {"num_predict": 600}}, 422, "context"),
        ("generate", {"prompt": "x", "stream": False, "model": "gone"}, 404, "gone"),
        ("generate", {"prompt": "x", "max_fee": 1}, 402, "1"),
        ("generate", {"prompt": "x", "multiplier": 30}, 402, "7980"),
        ("chat", {"messages": "x"}, 422, "messages"),
        ("chat", {"messages": ["x"]}, 422, "messages.0"),
        ("chat", {"messages": [{"role": "user", "content": "x", "images": ["y"]}]}, 422, "messages.0.images"),
        ("chat", {"messages": [{"role": "robot", "content": "x"}]}, 422, "messages.0.role"),
        ("chat", {"messages": HELLO, "tools": [{}]}, 422, "tools.0"),
        ("show", {"model": "gone"}, 404, "gone"),
        ("pull", {"model": "toy"}, 404, "/api/pull is not served here: models come"),
        ("blobs/sha256:1", {}, 404, "/api/blobs is not served here"),
    ],
)
async def test_what_is_refused_says_so_in_one_text_and_costs_nothing(
    front: Front, path: str, body: dict[str, Any], status: int, names: str
) -> None:
    reply = await front.client.post(f"/api/{path}", json=body)
    assert (reply.status_code, reply.json().keys()) == (status, {"error", "error_type"}), reply.text
    assert names in reply.json()["error"]
    assert await front.balances() == (1000, 0)


async def test_whoever_names_no_model_is_told_which_one_it_was(front: Front) -> None:
    for stream in (True, False):
        _, reply = await served(front, generating(front, stream=stream), "blue")
        assert {json.loads(line)["model"] for line in reply.text.splitlines()} == {MODEL}


async def test_a_length_of_0_is_as_many_as_fit(front: Front) -> None:
    lease, _ = await served(front, generating(front, options={"num_predict": 0}), "blue")
    assert lease.tokens == front.herd.settings.tokens_default


async def test_whether_anybody_is_there(front: Front) -> None:
    for path in ("/", "/api/version"):
        reply = await front.anonymous.head(path)
        assert (reply.status_code, reply.content) == (200, b""), path
    assert (await front.client.head("/api/tags")).status_code == 200


async def test_what_there_is(front: Front) -> None:
    assert isinstance((await front.anonymous.get("/api/version")).json()["version"], str)
    assert (await front.anonymous.get("/api/tags")).status_code == 401
    (model,) = (await front.client.get("/api/tags")).json()["models"]
    assert (model["name"], model["model"]) == ("toy:latest", "toy:latest")
    for name in ({"model": "toy"}, {"name": "toy:latest"}, {"model": ""}):
        shown = (await front.client.post("/api/show", json=name)).json()
        assert shown["model_info"]["herd.context_length"] == 512
    (running,) = (await front.client.get("/api/ps")).json()["models"]
    assert running["context_length"] == 512
    await front.leave()
    assert (await front.client.get("/api/ps")).json() == {"models": []}
