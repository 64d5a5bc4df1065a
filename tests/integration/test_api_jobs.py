"""Jobs over HTTP: submit, wait, list, cancel, idempotency keys, and where the money is at each point."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from herder.api import purchase
from herder.broker import Broker
from herder.errors import RedisUnavailable
from herder.protocol import Accepted, Ask, JobRecord, Outcome
from herder.settings import Settings
from tests.integration.api import Front, open_front, problem


async def test_a_prompt_is_paid_for_queued_answered_and_the_rest_refunded(front: Front) -> None:
    reply = await front.client.post("/v1/jobs", json={"prompt": "Name a colour.", "tokens": 20})
    job = reply.json()
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["position"], job["warning"]) == ("queued", 0, None)
    assert (job["base_fee"], job["fee"], job["multiplier"], job["balance"]) == (30, 30, 1.0, 970)
    assert await front.balances() == (970, 30)

    lease = await front.lease()
    assert (
        lease.brief.prompt == "<user>Name a colour.</user><assistant>"
    )  # templated, and the start token not doubled
    running = (await front.client.get(f"/v1/jobs/{job['id']}")).json()
    assert (running["status"], running["position"], running["attempt"]) == ("running", None, 1)

    await front.settle(lease, "blue", 5)
    done = (await front.client.get(f"/v1/jobs/{job['id']}")).json()
    assert done["status"] == "succeeded"
    expected = {
        "text": "blue", "finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 5, "cached_tokens": 0,
        "reasoning": None, "logprobs": None,
    }  # fmt: skip
    assert {name: done["result"][name] for name in expected} == expected
    (choice,) = done["result"]["choices"]
    assert (choice["text"], choice["completion_tokens"]) == ("blue", 5)
    assert (done["captured"], done["refunded"], done["error"]) == (15, 15, None)
    assert await front.balances() == (985, 0)


async def test_waiting_ends_with_the_job(front: Front) -> None:
    job = await front.submit()
    lease = await front.lease()
    waiting = asyncio.create_task(front.client.get(f"/v1/jobs/{job['id']}", params={"wait": 30}))
    await front.until_waiting(1)
    await front.say(lease, "bl")
    await front.settle(lease, "blue", 1)
    reply = await asyncio.wait_for(waiting, 5)
    assert reply.json()["result"]["text"] == "blue"
    await front.until_waiting(0)


async def test_waiting_for_an_ended_job_and_a_wait_that_runs_out(front: Front) -> None:
    first = await front.submit()
    await front.answer()
    ended = await front.client.get(f"/v1/jobs/{first['id']}?wait=30")
    assert ended.json()["status"] == "succeeded"
    second = await front.submit()
    waited = await front.client.get(f"/v1/jobs/{second['id']}?wait=0.05")
    assert (waited.status_code, waited.json()["status"]) == (200, "queued")


async def test_many_waiters_share_one_subscription(front: Front) -> None:
    jobs = [await front.submit() for _ in range(20)]
    waits = [asyncio.create_task(front.client.get(f"/v1/jobs/{job['id']}?wait=30")) for job in jobs]
    await front.until_waiting(len(jobs))
    subscribed = [c for c in await front.herd.broker.redis.client_list() if int(c["sub"]) > 0]
    assert len(subscribed) == 1, "and that is this app's, with all channels on it"
    for _ in jobs:
        await front.answer()
    assert {reply.json()["status"] for reply in await asyncio.gather(*waits)} == {"succeeded"}


async def test_a_stopping_herder_lets_its_waiters_go(front: Front) -> None:
    job = await front.submit()
    waiting = asyncio.create_task(front.client.get(f"/v1/jobs/{job['id']}?wait=30"))
    await front.until_waiting(1)
    front.herd.stopping.set()
    assert (await asyncio.wait_for(waiting, 1)).json()["status"] == "queued"


async def test_cancelling_in_the_queue_gives_everything_back(front: Front) -> None:
    job = await front.submit()
    reply = await front.client.delete(f"/v1/jobs/{job['id']}")
    assert (reply.json()["status"], reply.json()["refunded"], reply.json()["result"]) == (
        "cancelled",
        30,
        None,
    )
    assert await front.balances() == (1_000, 0)
    again = await front.client.delete(f"/v1/jobs/{job['id']}")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


async def test_cancelling_a_running_job_pays_what_was_made(front: Front) -> None:
    job = await front.submit()
    lease = await front.lease()
    reply = await front.client.delete(f"/v1/jobs/{job['id']}")
    assert (reply.json()["status"], reply.json()["cancel_requested"]) == ("running", True)
    await front.settle(lease, "bl", 2, Outcome.CANCELLED)
    ended = (await front.client.get(f"/v1/jobs/{job['id']}")).json()
    assert (ended["status"], ended["captured"], ended["refunded"]) == ("cancelled", 12, 18)
    assert (ended["result"]["text"], ended["result"]["finish_reason"]) == ("bl", "cancelled")


async def test_a_failed_job_says_why_and_costs_nothing(front: Front) -> None:
    job = await front.submit()
    await front.settle(await front.lease(), "", 0, Outcome.FAILED)
    ended = (await front.client.get(f"/v1/jobs/{job['id']}")).json()
    assert (ended["status"], ended["result"], ended["captured"]) == ("failed", None, 0)
    assert ended["error"] == {"code": "engine_error", "message": "it broke"}
    assert await front.balances() == (1_000, 0)


async def test_the_same_idempotency_key_is_the_same_job_paid_once(front: Front) -> None:
    headers = {"Idempotency-Key": "5d1c3e0f"}
    first = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 20}, headers=headers)
    # The same meaning, written otherwise, at another price.
    await front.herd.broker.set_prices(1_000_000, 1)
    again = await front.client.post(
        "/v1/jobs", content='{"tokens":20, "prompt":"a","raw":false}', headers=headers
    )
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    assert await front.balances() == (970, 30)
    other = await front.client.post("/v1/jobs", json={"prompt": "b", "tokens": 20}, headers=headers)
    problem(other, 409, "idempotency_conflict")
    assert await front.balances() == (970, 30)


async def test_a_hundred_at_once_with_one_idempotency_key_are_one_job(front: Front) -> None:
    def send() -> asyncio.Task[object]:
        post = front.client.post(
            "/v1/jobs", json={"prompt": "a", "tokens": 20}, headers={"Idempotency-Key": "k"}
        )
        return asyncio.ensure_future(post)

    replies = await asyncio.gather(*(send() for _ in range(100)))
    assert {reply.status_code for reply in replies} == {202}  # type: ignore[attr-defined]
    assert len({reply.json()["id"] for reply in replies}) == 1  # type: ignore[attr-defined]
    assert await front.balances() == (970, 30)


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_reply_of_redis_that_gets_lost_is_not_a_second_job(
    front: Front, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    left, real = [lost], Broker.submit

    async def submit(self: Broker, ask: Ask) -> Accepted:
        accepted = await real(self, ask)
        if left[0]:
            left[0] -= 1
            raise RedisUnavailable("the connection was lost")
        return accepted

    monkeypatch.setattr(Broker, "submit", submit)
    monkeypatch.setattr(purchase, "SEND_PAUSE_S", 0)
    reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 20})
    if lost < purchase.SEND_TRIES:
        assert reply.status_code == 202
        assert (reply.json()["position"], reply.headers.get("idempotent-replayed")) == (0, None)
    else:
        assert "not known" in problem(reply, 503, "redis_unavailable")["detail"]
    assert await front.balances() == (970, 30), "taken once, whatever was said of it"


async def test_a_job_that_was_accepted_is_named_when_redis_goes_away_after_it(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer needs no more than the submission itself; the same again reads the job."""

    async def lost(self: Broker, job_id: str) -> JobRecord | None:
        raise RedisUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Broker, "job", lost)
        send: dict[str, Any] = {"json": {"prompt": "a", "tokens": 20}, "headers": {"Idempotency-Key": "k"}}
        job = (await front.client.post("/v1/jobs", **send)).json()
        again = await front.client.post("/v1/jobs", **send)
    assert problem(again, 503, "redis_unavailable")["job_id"] == job["id"]
    assert (await front.client.get(f"/v1/jobs/{job['id']}")).json()["status"] == "queued"


async def test_prices_that_change_meanwhile_are_paid_as_they_are_then(front: Front) -> None:
    """Whatever was priced at an old list is priced again; nobody pays a price that no longer stands."""
    stop = asyncio.Event()

    async def change() -> None:
        fee = 10
        while not stop.is_set():
            fee = 30 - fee
            await front.herd.broker.set_prices(fee, 1)

    changing = asyncio.create_task(change())
    replies = await asyncio.gather(
        *(front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5}) for _ in range(20))
    )
    stop.set()
    await changing
    fees = [reply.json()["fee"] for reply in replies if reply.status_code == 202]
    assert {reply.status_code for reply in replies} <= {202, 503}
    assert set(fees) <= {15, 25}
    assert await front.balances() == (1_000 - sum(fees), sum(fees))


async def test_a_higher_bid_stands_before_and_the_automatic_price_follows_it(front: Front) -> None:
    plain, bid = await front.submit(), await front.submit(multiplier=2.5)
    assert (bid["fee"], bid["multiplier"], bid["position"]) == (75, 2.5, 0)
    assert (await front.client.get(f"/v1/jobs/{plain['id']}")).json()["position"] == 1
    automatic = await front.submit(max_fee=31)
    assert automatic["fee"] <= 31


async def test_a_static_fee_and_exact_thousandths(front: Front) -> None:
    static = await front.submit(fee=45)
    assert (static["fee"], static["multiplier"]) == (45, 1.5)
    exact = await front.client.post("/v1/jobs", content='{"prompt":"a","tokens":20,"multiplier":1.001}')
    assert (exact.json()["multiplier"], exact.json()["fee"]) == (1.001, 31)


async def test_what_was_asked_reaches_the_worker(front: Front) -> None:
    await front.submit(
        prompt="once", raw=True, stop=["\n", "END"], temperature=0.5, top_p=0.9, seed=7, metadata={"a": "b"}
    )
    lease = await front.lease()
    assert (lease.brief.prompt, lease.tokens, lease.brief.stop) == ("once", 20, ("\n", "END"))
    assert (lease.brief.sampling.temperature, lease.brief.sampling.top_p, lease.brief.sampling.seed) == (
        0.5,
        0.9,
        7,
    )
    listed = (await front.client.get("/v1/jobs")).json()["jobs"]
    assert listed[0]["metadata"] == {"a": "b"}


async def test_a_chat_goes_through_the_template(front: Front) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé!"}]
    reply = await front.client.post("/v1/jobs", json={"messages": chat, "tokens": 5, "stop": "x"})
    assert reply.status_code == 202
    assert (await front.lease()).brief.prompt == "<system>Be brief.</system><user>Hé!</user><assistant>"


async def test_jobs_are_listed_newest_first_in_pages(front: Front) -> None:
    ids = [(await front.submit())["id"] for _ in range(5)]
    seen, cursor = [], None
    for _ in range(4):
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await front.client.get("/v1/jobs", params=params)).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    positions = [job["position"] for job in (await front.client.get("/v1/jobs")).json()["jobs"]]
    assert positions == [4, 3, 2, 1, 0]


async def test_a_model_without_a_worker_takes_jobs_with_a_warning(front: Front) -> None:
    await front.leave()
    job = await front.submit()
    assert "no live worker" in job["warning"]
    assert "no live worker" in (await front.client.get("/v1/jobs")).json()["jobs"][0]["warning"]


async def test_a_model_without_a_worker_is_refused_where_the_settings_say_so(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"refuse_without_worker": True})) as front:
        await front.submit()
        await front.leave()
        reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5})
        assert problem(reply, 503, "no_worker")
        assert int(reply.headers["retry-after"]) >= 1
        problem(await front.anonymous.get("/readyz"), 503, "not_ready")


async def test_a_full_redis_takes_no_more_prompts(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    share = 0.95

    async def memory_share(self: Broker) -> float:
        return share

    monkeypatch.setattr(Broker, "memory_share", memory_share)
    await front.until_full(True)  # the app looks each second by itself
    reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5})
    problem(reply, 503, "overloaded")
    assert reply.headers["retry-after"] == "5"
    assert await front.balances() == (1_000, 0)
    share = 0.5
    await front.until_full(False)
    await front.submit()
