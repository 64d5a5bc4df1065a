"""The library's `map`, over a transport in memory; webhooks and the rest; and the two clients side by side."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import llama_herder
from llama_herder import AsyncHerder, BatchResult, Herder
from tests.unit.batch_script import BATCH, BOTH, Script, both, ended, result
from tests.unit.stream_script import Pieces, nothing

Kind = type[Herder | AsyncHerder]
PROMPTS = ["one", "zwei ♥", "three"]


# --- map -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("ordered", [True, False])
def test_map_gives_every_result_in_its_order(kind: Kind, ordered: bool) -> None:
    script = Script(order=[2, 0, 1])
    script.faults = [script.lost, script.whole, script.cut(150), script.cut(10, httpx.ReadError(""))]
    found, error, _ = both(kind, script, lambda h: h.map(PROMPTS, 40, ordered=ordered))
    assert error is None
    assert [result.index for result in found] == ([0, 1, 2] if ordered else [2, 0, 1])
    assert len(script.paid) == 1


@BOTH
def test_refused_items_are_missing_and_failed_ones_are_not(kind: Kind) -> None:
    script = Script(order=[1, 0], refused=1, statuses={0: "failed"})
    charge = "as_many_as_affordable"
    found, error, _ = both(kind, script, lambda h: h.map(PROMPTS, 40, charge=charge))
    assert (error, script.options["charge"]) == (None, charge)
    assert [(result.index, result.status) for result in found] == [(0, "failed"), (1, "succeeded")]


def test_nothing_is_sent_before_the_first_is_asked_for() -> None:
    script = Script()
    with Herder(transport=httpx.MockTransport(script)) as herder:
        results = herder.map(PROMPTS, 40)
        assert (script.seen, results.batch) == ([], None)
        assert next(results).index == 0
        assert results.batch is not None
        assert results.batch.id == BATCH
        results.close()
        herder.map(PROMPTS, 40, cancel_on_exit=True).close()
    assert not script.cancelled
    assert script.bodies[-1].closed


@pytest.mark.parametrize("cancel", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_a_loop_that_is_left_early_cancels_where_that_was_asked_for(cancel: bool, whole: bool) -> None:
    script = Script()
    with Herder(transport=httpx.MockTransport(script)) as herder:
        with herder.map(PROMPTS, 40, cancel_on_exit=cancel) as results:
            for found in results:
                if not whole:
                    break
                assert isinstance(found, BatchResult)
        assert script.cancelled == (cancel and not whole)


@pytest.mark.parametrize("cancel", [True, False])
async def test_so_does_an_asynchronous_one(cancel: bool) -> None:
    script = Script()
    async with AsyncHerder(transport=httpx.MockTransport(script)) as herder:
        async with herder.map(PROMPTS, 40, cancel_on_exit=cancel) as results:
            assert (await anext(results)).index == 0
            assert not script.cancelled
        assert script.cancelled == cancel
        assert all(body.closed for body in script.bodies)


# --- the rest --------------------------------------------------------------------------------------------


@BOTH
def test_looking_and_cancelling(kind: Kind) -> None:
    script = ended()
    (batch,), _, _ = both(kind, script, lambda h: h.batch_status(BATCH))
    assert (batch.status, batch.counts.succeeded) == ("ended", 3)
    (again,), _, _ = both(kind, script, lambda h: h.cancel_batch(batch))
    assert again == batch
    script.faults = [lambda request: httpx.Response(200, json={"batches": [batch.raw], "next": "c"})]
    (page,), _, _ = both(kind, script, lambda h: h.batches(limit=1, cursor="b"))
    assert ([one.id for one in page], page.next) == ([BATCH], "c")
    assert script.requests() == ["GET /batches/batch_1", "DELETE /batches/batch_1", "GET /batches b"]


def upon_webhooks(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda herder: call(herder.webhooks)


@BOTH
def test_webhook_calls_go_where_they_should(kind: Kind) -> None:
    seen: list[str] = []
    found = {
        "id": "ep_1",
        "secret": "whsec_hidden",
        "endpoints": [],
        "deliveries": [],
        "default_url": "https://a",
    }

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().removeprefix("/v1/webhooks/")
        seen.append(f"{request.method} {path} {request.content.decode()}".strip())
        return httpx.Response(200, json=found)

    calls = (
        *(lambda w: w.endpoints(), lambda w: w.add("https://a"), lambda w: w.show("ep_1")),
        *(lambda w: w.rotate("ep_1"), lambda w: w.enable("ep_1"), lambda w: w.disable("ep_1")),
        *(lambda w: w.delete("ep_1"), lambda w: w.set_default(None), lambda w: w.set_default("https://a")),
        *(lambda w: w.deliveries("dead", 5, "c"), lambda w: w.delivery("msg_1")),
        lambda w: w.redeliver("msg/1"),
    )
    given = [both(kind, answer, upon_webhooks(call))[0][0] for call in calls]
    assert seen == [
        "GET endpoints",
        'POST endpoints {"url":"https://a"}',
        "GET endpoints/ep_1",
        "POST endpoints/ep_1/rotate",
        "POST endpoints/ep_1/enable",
        "POST endpoints/ep_1/disable",
        "DELETE endpoints/ep_1",
        'PUT default {"url":null}',
        'PUT default {"url":"https://a"}',
        "GET deliveries?limit=5&cursor=c&status=dead",
        "GET deliveries/msg_1",
        "POST deliveries/msg%2F1/redeliver",
    ]
    assert given[0].default_url == "https://a"
    assert given[1].secret == "whsec_hidden"
    assert "whsec" not in repr(given)


@BOTH
@pytest.mark.parametrize("verb", ["rotate", "delete", "redeliver"])
def test_what_is_done_once_is_not_tried_twice(kind: Kind, verb: str) -> None:
    script = Script()
    script.faults = [nothing(httpx.ReadTimeout(""))]
    _, error, _ = both(kind, script, lambda h: getattr(h.webhooks, verb)("ep_1"))
    assert "all the same" in str(error)
    assert len(script.seen) == 1


def public(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """Every call, inherited ones too, with its signature."""
    for name, value in inspect.getmembers(kind, callable):
        if not name.startswith("_"):
            found = inspect.signature(value)
            signature = str(found).replace("-> 'Async", "-> '")
            if name in {"every", "on_answer"}:  # what is given to them may be awaited, in the one of them
                signature = str(list(found.parameters))
            yield {"aclose": "close"}.get(name, name), signature


def test_the_two_clients_have_the_same_calls() -> None:
    for ours, theirs in (
        (Herder, AsyncHerder),
        (llama_herder.Chat, llama_herder.AsyncChat),
        (llama_herder.Webhooks, llama_herder.AsyncWebhooks),
        (llama_herder.BatchResults, llama_herder.AsyncBatchResults),
    ):
        assert dict(public(ours)) == dict(public(theirs))
    assert {"batch", "map", "batch_results", "cancel_batch"} <= dict(public(Herder)).keys()


def test_jobs_tell_their_batch_and_options_go_into_the_body() -> None:
    answered = {"id": "job_1n0", "batch_id": BATCH, "custom_id": "c", "webhook_url": "https://a.example"}
    script = Script()
    script.faults = [lambda request: httpx.Response(202, json=answered)]
    with Herder(transport=httpx.MockTransport(script)) as herder:
        job = herder.submit("hi", 4, webhook_url="https://a.example")
    assert (job.batch_id, job.custom_id, job.webhook_url) == (BATCH, "c", "https://a.example")
    assert json.loads(script.seen[0].content)["webhook_url"] == "https://a.example"
    plain = llama_herder.Job.from_json({"id": "job_1"})
    assert (plain.batch_id, plain.custom_id, plain.webhook_url) == (None, None, None)


def test_an_answer_that_is_compressed_or_not_of_a_batch_stays_closed() -> None:
    script = ended(1)
    body = Pieces([b"nope"])
    script.faults = [lambda request: httpx.Response(200, headers={"content-type": "text/plain"}, stream=body)]
    _, error, _ = both(Herder, script, lambda h: h.batch_results(BATCH))
    assert error is not None
    assert body.closed
    assert result(1, 0)["status"] == "succeeded"
