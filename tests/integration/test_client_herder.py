"""The library against a real herder: the calls, typed; a submission repeated; a herder that restarts meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

import llama_herder
from herder.broker import Broker
from herder.protocol import Outcome
from herder.settings import Settings
from llama_herder import AsyncHerder, Herder, _async
from tests.integration.broken_lines import Lossy
from tests.integration.client_herd import FUNDS, Herd, running


async def test_run_returns_the_answer(herd: Herd, herder: AsyncHerder) -> None:
    job, _ = await asyncio.gather(herder.run("What is a chatbot?", tokens=40), herd.work(3))
    assert (job.status, job.text, job.ended) == ("succeeded", "xxx", True)
    assert (job.fee, job.captured, job.refunded) == (50, 13, 37)
    assert job.result is not None
    assert job.result.completion_tokens == 3


async def test_the_sync_client_in_a_thread(herd: Herd) -> None:
    def ask() -> llama_herder.Job:
        with Herder(herd.url, herd.key) as herder:
            return herder.run("What is a chatbot?", 40, multiplier=2, metadata={"for": "a test"})

    job, _ = await asyncio.gather(asyncio.to_thread(ask), herd.work(3))
    assert (job.text, job.multiplier, job.metadata) == ("xxx", 2.0, {"for": "a test"})


async def test_submit_says_what_is_left_and_quote_what_it_would_be(herd: Herd, herder: AsyncHerder) -> None:
    quote = await herder.quote("hi", tokens=40, fee=60)
    assert (quote.fee, quote.feasible, quote.reason, quote.balance) == (60, True, None, FUNDS)
    job = await herder.submit("hi", tokens=40, fee=60)
    assert (job.status, job.position, job.balance) == ("queued", 0, FUNDS - 60)
    assert (await herder.job(job.id)).id == job.id
    cancelled = await herder.cancel(job)
    assert (cancelled.status, cancelled.refunded) == ("cancelled", 60)
    poor = await herder.quote("hi", tokens=900, multiplier=50)
    assert not poor.feasible
    assert poor.reason is not None
    assert poor.reason.code == "insufficient_funds"


@pytest.mark.usefixtures("hurried")
async def test_a_submission_whose_reply_was_lost_is_paid_once(herd: Herd) -> None:
    async with AsyncHerder(herd.url, herd.key, transport=Lossy()) as herder:
        job = await herder.submit("hi", tokens=40)
        assert [found.id for found in await herder.jobs()] == [job.id]
    assert await herd.balance() == (FUNDS - 50, 50)


async def test_a_wait_that_is_over_and_a_wait_that_goes_on(herd: Herd, herder: AsyncHerder) -> None:
    job = await herder.submit("hi", tokens=40)
    with pytest.raises(llama_herder.WaitTimeout, match=f"{job.id} is still queued"):
        await herder.wait(job, timeout=0)
    seen: list[llama_herder.Job] = []
    ended, _ = await asyncio.gather(herder.wait(job.id, on_poll=seen.append), herd.work())
    assert ended.text == "xxx"
    assert seen[-1] == ended


async def test_a_wait_outlives_the_herder(
    herd: Herd, settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The herder goes while somebody waits, and comes back on the same port."""
    away = asyncio.Event()
    back = asyncio.Event()

    async def pause(seconds: float) -> None:
        away.set()
        await back.wait()

    monkeypatch.setattr(_async, "_sleep", pause)
    port = httpx.URL(herd.url).port
    async with AsyncHerder(herd.url, herd.key) as herder:
        job = await herder.submit("hi", tokens=40)
        waiting = asyncio.create_task(herder.wait(job))
        await herd.stop()
        async with asyncio.timeout(30):
            await away.wait()
        assert not waiting.done()
        async with running(settings, broker, port=port or 0, again=True) as again:
            back.set()
            await again.work(3)
            assert (await waiting).text == "xxx"


async def test_a_failed_job_carries_its_refund(herd: Herd, herder: AsyncHerder) -> None:
    results = await asyncio.gather(
        herder.run("hi", tokens=40), herd.work(0, Outcome.FAILED), return_exceptions=True
    )
    error = results[0]
    assert isinstance(error, llama_herder.JobFailed)
    assert error.job.refunded == 50
    assert error.job.error is not None
    assert error.job.error.message == "it broke"


async def test_the_herd_the_account_and_the_ledger(herd: Herd, herder: AsyncHerder) -> None:
    info = await herder.info()
    assert (info.set_prompt_fee, info.fee_per_token, info.models, info.slots) == (10, 1, ("toy",), 4)
    assert [model.context for model in await herder.models()] == [1024]
    assert [worker.id for worker in await herder.workers()] == ["w1"]
    account = await herder.account()
    assert (account.id, account.available, account.held, account.suspended) == ("ann", FUNDS, 0, False)
    assert [(entry.kind, entry.amount) for entry in await herder.ledger()] == [("deposit", FUNDS)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (llama_herder.UnknownModel, {"model": "gpt-99"}),
        (llama_herder.FeeTooLow, {"fee": 3}),
        (llama_herder.MaxFeeExceeded, {"max_fee": 3}),
        (llama_herder.InsufficientFunds, {"multiplier": 100}),
        (llama_herder.InvalidRequest, {"temperature": 9}),
    ],
)
async def test_refusals_have_their_exception(
    herd: Herd, herder: AsyncHerder, kind: type[llama_herder.Refusal], options: Any
) -> None:
    with pytest.raises(kind) as caught:
        await herder.submit("hi", tokens=900, **options)
    assert caught.value.request_id
    assert await herd.balance() == (FUNDS, 0)


async def test_a_key_is_used_for_one_request_only(herder: AsyncHerder) -> None:
    first = await herder.submit("hi", tokens=40, idempotency_key="mine")
    again = await herder.submit("hi", tokens=40, idempotency_key="mine")
    assert again.id == first.id
    with pytest.raises(llama_herder.IdempotencyConflict):
        await herder.submit("ho", tokens=40, idempotency_key="mine")


async def test_an_admin_runs_the_accounts(herd: Herd, herder: AsyncHerder) -> None:
    with pytest.raises(llama_herder.Forbidden):
        await herder.admin.accounts()
    async with AsyncHerder(herd.url, herd.admin_key) as root:
        assert (await root.admin.create("bob", 5)).available == 5
        with pytest.raises(llama_herder.Conflict):
            await root.admin.create("bob")
        assert (await root.admin.deposit("bob", 10, deposit_id="d1")).available == 15
        assert (await root.admin.deposit("bob", 10, deposit_id="d1")).available == 15
        key = await root.admin.create_key("bob", label="laptop")
        async with AsyncHerder(herd.url, key.key) as bob:
            assert (await bob.account()).id == "bob"
            await root.admin.suspend("bob")
            with pytest.raises(llama_herder.AccountSuspended):
                await bob.submit("hi", tokens=1)
            await root.admin.revoke_key("bob", key.id)
            with pytest.raises(llama_herder.InvalidKey):
                await bob.account()
        assert {account.id for account in await root.admin.accounts()} == {"ann", "bob", "root"}
        audit = await root.admin.audit()
        assert audit.clean
        assert len(audit.rows) == 3
