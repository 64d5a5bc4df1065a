"""Reasoning apart from the answer, through the API: in results, in streams, for readers that come back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from tests.integration.api import CARD, Front
from tests.integration.streaming import events_of, text_of

TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
THINKS = TURNS + "{% if '</think>' in messages[0].content %}{% endif %}<a>"


async def served(front: Front, template: str | None) -> None:
    """The model has this template."""
    await front.worker(replace(CARD, template=template))


async def thinking(
    front: Front, answer: list[str], its_template: str = THINKS, **body: Any
) -> dict[str, Any]:
    """A job of a model that thinks, answered in these pieces; as it then is."""
    await served(front, its_template)
    job = (await front.client.post("/v1/jobs", json={"prompt": "hi", "tokens": 50, **body})).json()
    lease = await front.lease()
    for index, piece in enumerate(answer):
        await front.say(lease, piece, index)
    await front.settle(lease, "".join(answer), len(answer))
    shown: dict[str, Any] = (await front.client.get(f"/v1/jobs/{job['id']}")).json()
    return shown


async def test_reasoning_is_kept_apart(front: Front) -> None:
    job = await thinking(front, ["<th", "ink>hm", "m</", "think>", "\n42"])
    assert (job["result"]["reasoning"], job["result"]["text"]) == ("hmm", "\n42")
    assert job["result"]["choices"][0]["reasoning"] == "hmm"
    assert (job["result"]["completion_tokens"], job["captured"]) == (5, 15), "thinking is paid"
    events = events_of((await front.client.get(f"/v1/jobs/{job['id']}/events")).text)
    assert text_of(events) == "\n42"
    tokens = [event.shown for event in events if event.kind == "tokens"]
    assert "".join(shown.get("reasoning", "") for shown in tokens) == "hmm"
    assert sum(shown["count"] for shown in tokens) == 5
    assert events[-1].shown["result"] == job["result"]


async def test_a_prompt_may_begin_the_reasoning(front: Front) -> None:
    job = await thinking(front, ["hmm", "</think>42"], THINKS + "<think>\n")
    assert (job["result"]["reasoning"], job["result"]["text"]) == ("hmm", "42")


async def test_no_template_no_reasoning(front: Front) -> None:
    for template, body in ((TURNS, {}), (THINKS, {"raw": True}), (THINKS, {"template": "chatml"})):
        job = await thinking(front, ["<think>a</think>b"], template, **body)
        assert (job["result"]["reasoning"], job["result"]["text"]) == (None, "<think>a</think>b")


async def test_a_reader_that_comes_back_goes_on_where_it_was(front: Front) -> None:
    job = await thinking(front, ["<think>a", "b<", "/think", ">c", "</thi"], n=1)
    url = f"/v1/jobs/{job['id']}/events"
    whole = events_of((await front.client.get(url)).text)
    for place, event in enumerate(whole[:-1]):
        rest = events_of((await front.client.get(url, headers={"Last-Event-ID": event.event_id or ""})).text)
        assert rest == whole[place + 1 :]


async def test_a_reader_that_listens_gets_the_same(front: Front) -> None:
    await served(front, THINKS)
    job = await front.submit(tokens=50)
    url = f"/v1/jobs/{job['id']}/events"
    listening = asyncio.create_task(front.client.get(url))
    lease = await front.lease()
    while not front.herd.metrics.registry.get_sample_value("herder_streams"):
        await front.herd.broker.ping()
    pieces = ["<think>a", "b<", "/think", ">c", "</thi", "nk"]
    for index, piece in enumerate(pieces):
        await front.say(lease, piece, index)
    await front.settle(lease, "".join(pieces), len(pieces))
    heard = [event for event in events_of((await listening).text) if event.event_id]
    assert heard == events_of((await front.client.get(url)).text)
    assert text_of(heard) == heard[-1].shown["result"]["text"] == "c</think"
    assert heard[-1].shown["result"]["reasoning"] == "ab"


async def test_what_is_held_back_to_the_end_is_told_before_it(front: Front) -> None:
    job = await thinking(front, ["<think>a</thi"])
    assert (job["result"]["reasoning"], job["result"]["text"]) == ("a</thi", "")
    url = f"/v1/jobs/{job['id']}/events"
    whole = events_of((await front.client.get(url)).text)
    told, held = [event for event in whole if event.kind == "tokens"]
    assert (told.shown["reasoning"], held.shown["reasoning"], held.shown["count"]) == ("a", "</thi", 0)
    for event, left in ((told, [held, whole[-1]]), (held, [whole[-1]])):
        rest = events_of((await front.client.get(url, headers={"Last-Event-ID": event.event_id or ""})).text)
        assert rest == left
