"""The worker as a process: a real model, a real Redis, real signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest

from herder.brief import Brief
from herder.broker import Broker, connect
from herder.ledger import Ledger
from herder.lifecycle import TERMINAL, Status
from herder.pricing import Terms, base_fee, capture
from herder.protocol import Ask, EventKind, FinishReason, JobRecord
from herder.settings import Settings
from herder.templates import text_of
from tests.simulation.server import private_redis
from worker.main import EXIT_NO_REDIS

ACCOUNT, MODEL = "alice", "herd-tiny"
WIRE = ("evalsha", "script", "ping", "subscribe", "client", "hello")
_jobs = count(1)


def _start(*flags: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "worker.main", *flags], env=environment)


class Herd:
    """A broker with a funded account, and worker processes."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self.broker = broker
        self.settings = settings

    async def open(self) -> Herd:
        """Fund the account."""
        ledger = Ledger(self.broker, b"a secret for the tests only")
        await ledger.create_account(ACCOUNT)
        await ledger.deposit(ACCOUNT, 10**6, "first")
        return self

    @asynccontextmanager
    async def worker(self, *flags: str, **more: str) -> AsyncIterator[subprocess.Popen[bytes]]:
        """A worker process that has registered; killed at the end where it still runs."""
        environment = {
            "HERDER_REDIS_URL": self.settings.redis_url,
            "HERDER_REDIS_PREFIX": self.settings.redis_prefix,
            "HERDER_LOG_LEVEL": "warning",
            "PATH": "/usr/bin:/bin",
            **more,
        }
        before = len(await self.broker.worker_states())
        process = _start(*flags, **environment)
        try:
            async with asyncio.timeout(60):
                while len(await self.broker.worker_states()) == before:
                    assert process.poll() is None, "the worker ended at once"
                    await asyncio.sleep(0)
            yield process
        finally:
            process.kill()
            process.wait()

    async def submit(self, prompt: str, tokens: int) -> str:
        """A job in the queue."""
        prices = await self.broker.prices()
        base = base_fee(prices, tokens)
        job = f"job_{next(_jobs)}"
        ask = Ask(
            job_id=job,
            account=ACCOUNT,
            key_id="key",
            model=MODEL,
            brief=Brief(prompt),
            tokens=tokens,
            terms=Terms(prices.set_prompt_fee, prices.fee_per_token, base, base),
            multiplier_milli=1_000,
            offered=False,
            price_version=prices.version,
            kv_tokens=len(prompt) + tokens,
        )
        await self.broker.submit(ask)
        return job

    async def until(self, job: str, condition: Callable[[JobRecord], bool]) -> JobRecord:
        """Wait for a state of a job."""
        async with asyncio.timeout(60):
            while True:
                record = await self.broker.job(job)
                assert record is not None
                if condition(record):
                    return record
                await asyncio.sleep(0)

    async def heartbeats(self, number: int) -> None:
        """Wait for so many heartbeats of the one worker."""
        seen: set[int] = set()
        async with asyncio.timeout(60):
            while len(seen) <= number:
                (state,) = await self.broker.worker_states()
                seen.add(state.last_seen_ms)
                await asyncio.sleep(0)

    async def ended(self, job: str) -> JobRecord:
        """Wait for the end of a job."""
        return await self.until(job, lambda record: record.status in TERMINAL)


@pytest.fixture
async def herd(broker: Broker, settings: Settings) -> Herd:
    """An open herd without workers."""
    return await Herd(broker, settings).open()


async def gone(process: subprocess.Popen[bytes]) -> int:
    """The exit code."""
    return await asyncio.to_thread(process.wait, 60)


async def test_jobs_are_answered_and_the_log_adds_up(herd: Herd) -> None:
    async with herd.worker("--slots", "3") as process:
        card = await herd.broker.card(MODEL)
        assert card is not None
        assert card.context == 1_024
        assert card.template
        assert await herd.broker.vocab(MODEL)
        jobs = [await herd.submit(f"What colour is grass? {i}", 16) for i in range(8)]
        for job in jobs:
            record = await herd.ended(job)
            assert record.status is Status.SUCCEEDED
            assert record.completion_tokens is not None
            assert record.captured == capture(Terms(10, 1, record.base, record.fee), record.completion_tokens)
            events = await herd.broker.events(job)
            text = "".join(e.fields["text"] for e in events if e.kind is EventKind.TOKENS)
            assert text == record.text
        process.send_signal(signal.SIGTERM)
        assert await gone(process) == 0
    assert await herd.broker.worker_states() == []


async def test_a_worker_with_every_setting_of_llama_cpp_changed_answers(herd: Herd) -> None:
    flags = ["--kv-type-k", "q8_0", "--kv-type-v", "q8_0", "--flash-attention", "on", "--kv-unified", "off"]
    flags += ["--batch-tokens", "32", "--ubatch-tokens", "16", "--threads", "2", "--threads-prompt", "1"]
    async with herd.worker(*flags, "--template", "chatml", "--slots", "2") as process:
        card = await herd.broker.card(MODEL)
        assert card is not None
        assert card.template == text_of("chatml")
        assert card.context == 1_024
        jobs = [await herd.submit(f"{i} " + "Tell me about llamas and hills. " * 20, 16) for i in range(4)]
        for job in jobs:
            record = await herd.ended(job)
            assert record.status is Status.SUCCEEDED
            assert (record.prompt_tokens or 0) > 100
            assert record.completion_tokens
        process.send_signal(signal.SIGTERM)
        assert await gone(process) == 0


async def test_a_running_job_is_cancelled_between_two_steps(herd: Herd) -> None:
    async with herd.worker("--engine", "fake", "--fake-step-ms", "5"):
        job = await herd.submit("tell me everything", 3_000)
        await herd.until(job, lambda record: record.status is Status.RUNNING)
        await herd.broker.cancel(ACCOUNT, job)
        record = await herd.ended(job)
    assert (record.status, record.finish_reason) == (Status.CANCELLED, FinishReason.CANCELLED)
    assert record.completion_tokens is not None
    assert record.completion_tokens < 3_000
    assert len(record.text or "") == record.completion_tokens


async def test_sigterm_drains_and_a_second_one_hands_back(herd: Herd) -> None:
    async with herd.worker("--engine", "fake", "--fake-step-ms", "5") as process:
        short = await herd.submit("short", 40)
        await herd.until(short, lambda record: record.status is Status.RUNNING)
        process.send_signal(signal.SIGTERM)
        assert await gone(process) == 0
        assert (await herd.ended(short)).status is Status.SUCCEEDED
    async with herd.worker("--engine", "fake", "--fake-step-ms", "5") as process:
        long = await herd.submit("long", 3_000)
        await herd.until(long, lambda record: record.status is Status.RUNNING)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert await gone(process) == 0
        record = await herd.broker.job(long)
        assert record is not None
        assert (record.status, record.attempt) == (Status.QUEUED, 1)


async def test_a_wedged_engine_does_not_keep_the_process_from_ending(herd: Herd) -> None:
    async with herd.worker("--engine", "fake", "--drain-ms", "50") as process:
        job = await herd.submit("[[hang]]", 10)
        await herd.until(job, lambda record: record.status is Status.RUNNING)
        process.send_signal(signal.SIGTERM)
        assert await gone(process) == 0
        record = await herd.broker.job(job)
        assert record is not None
        assert record.status is Status.QUEUED


async def test_a_killed_worker_loses_its_lease_and_another_answers(herd: Herd) -> None:
    lease = {"HERDER_LEASE_MS": "500"}
    async with herd.worker("--engine", "fake", "--fake-step-ms", "5", **lease) as process:
        job = await herd.submit("answer me", 400)
        await herd.until(job, lambda record: record.status is Status.RUNNING)
        process.kill()
        await gone(process)
    # The sweep after a fresh start of Redis gives everybody one lease's time; then the job is queued again.
    async with asyncio.timeout(60):
        while (record := await herd.broker.job(job)) is not None and record.status is Status.RUNNING:
            await herd.broker.sweep()
    async with herd.worker("--engine", "fake", **lease):
        record = await herd.ended(job)
    assert (record.status, record.attempt) == (Status.SUCCEEDED, 2)
    assert len(record.text or "") == 400


async def test_an_idle_worker_sends_at_most_two_commands_a_second(settings: Settings) -> None:
    # Redis counts commands by server, not by prefix: this one is nobody else's.
    with private_redis() as url:
        broker = await connect(settings.model_copy(update={"redis_url": url}))
        herd = Herd(broker, broker.settings)

        async def commands() -> Counter[str]:
            # What came over the wire: the commands that scripts run inside Redis are counted under their own names.
            stats = await broker.redis.info("commandstats")
            return Counter({name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in WIRE})

        async with herd.worker("--engine", "fake"):
            loop = asyncio.get_running_loop()
            await herd.heartbeats(2)  # connections are made and scripts loaded once
            before, began = await commands(), loop.time()
            await herd.heartbeats(4)
            sent, seconds = await commands() - before, loop.time() - began
        await broker.close()
    assert 1 <= sent.total() <= 2 * seconds, sent


WARMED_UP = """
import os
import numpy  # has a thread of its own
from worker.main import open_engine, read_plan

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
open_engine(read_plan(["--model", "herd-tiny", "--threads", "3", "--redis-url", "unix:///none"]))
while threads() > before:  # they are told to end, and take a moment
    os.sched_yield()
"""


def test_warming_up_leaves_no_thread_of_openmp_s() -> None:
    # Helpers of a second thread that has computed would keep the engine's own from spinning.
    subprocess.run([sys.executable, "-c", WARMED_UP], check=True, timeout=50)


def test_without_redis_the_exit_code_says_so() -> None:
    flags = ["--engine", "fake", "--redis-url", "unix:///nowhere/redis.sock"]
    child = subprocess.run(
        [sys.executable, "-m", "worker.main", *flags], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.returncode == EXIT_NO_REDIS
    assert "Redis" in child.stderr
