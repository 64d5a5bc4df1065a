"""SIGKILL to each part of a herd while it answers: every accepted job is answered once, and the ledger is exact.

One herd lives through all of it, as a real one would; its last test kills the supervisor itself.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from herder.lifecycle import Status
from herder.protocol import EventKind
from llama_herder import HerderError, Job
from tests.e2e.books import closed_books, event_log
from tests.e2e.herd import Up, alive, herd, until
from tests.e2e.slow_model import tokens_for

LONG_S = 4.0
ANSWER_S = 100.0
PROMPT = "Tell me everything"


@pytest.fixture(scope="module")
def up(slow: str) -> Iterator[Up]:
    with herd("--workers", "2", "--model", slow) as running:
        yield running


@pytest.fixture(scope="module")
def long(up: Up) -> int:
    """Tokens that take one worker some seconds."""
    with up.client() as herder:
        return tokens_for(herder, LONG_S, 2)


def answering(up: Up, job: Job) -> str:
    """Wait until the first words of the answer are out; the part of the herd that says them."""

    def started() -> str | None:
        events = up.ask(lambda broker: event_log(broker, job.id))
        if not any(event.kind is EventKind.TOKENS for event in events):
            return None
        record = up.ask(lambda broker: broker.job(job.id))
        assert record is not None
        assert record.status is Status.RUNNING, "the answer was too short to be killed in the middle"
        return (record.worker or "").rpartition("-")[0]

    return until(started, f"{job.id} is being answered") or ""


def test_a_worker_killed_in_mid_answer(up: Up, long: int) -> None:
    with up.client() as herder:
        job = herder.submit(PROMPT, tokens=long, temperature=0.8, ignore_eos=True)
        worker = answering(up, job)
        pid = up.kill(worker)
        ended = herder.wait(job, ANSWER_S)
        up.until_restarted(worker, pid)
    record = closed_books(up, [job.id])[job.id]
    events = up.ask(lambda broker: event_log(broker, job.id))
    assert (ended.status, ended.attempt, record.status) == ("succeeded", 2, Status.SUCCEEDED)
    assert [event.kind for event in events].count(EventKind.RESTARTED) == 1
    assert ended.result is not None
    assert ended.captured == 10 + ended.result.completion_tokens


def test_the_api_killed_while_clients_wait(up: Up, long: int) -> None:
    with up.client() as herder, ThreadPoolExecutor(8) as pool:
        jobs = [herder.submit(f"{PROMPT} about {i}", tokens=long) for i in range(3)]
        paid = herder.submit("Once only", tokens=8, idempotency_key="before")
        waits = [pool.submit(herder.wait, job, ANSWER_S) for job in jobs]
        answering(up, jobs[0])
        crossing = [
            pool.submit(herder.submit, "Once", tokens=8, idempotency_key=f"across-{i}") for i in range(3)
        ]
        pid = up.kill("api")
        up.until_restarted("api", pid)
        crossed = [job.exception() for job in crossing]
        assert all(error is None or isinstance(error, HerderError) for error in crossed)
        until(lambda: _is_up(up), "the API answers again")
        again = [herder.submit("Once", tokens=8, idempotency_key=f"across-{i}") for i in range(3)]
        assert herder.submit("Once only", tokens=8, idempotency_key="before").id == paid.id
        assert {job.result().id for job in crossing if not job.exception()} <= {job.id for job in again}
        assert [wait.result().status for wait in waits] == ["succeeded"] * 3
        for job in [paid, *again]:
            herder.wait(job, ANSWER_S)
    records = closed_books(up, [job.id for job in [*jobs, paid, *again]])
    # Eight jobs in all since the worker's: three long ones, one before the kill, three across it, each once.
    assert sum(record.tokens == 8 for record in records.values()) == 4
    assert all(record.status is Status.SUCCEEDED for record in records.values())


def _is_up(up: Up) -> bool:
    with up.client() as herder:
        try:
            return bool(herder.info().models)
        except HerderError:
            return False


def test_redis_killed_while_jobs_run(up: Up, long: int) -> None:
    others = {name: up.pid_of(name) for name in ("api", "worker-1", "worker-2")}
    with up.client() as herder, ThreadPoolExecutor(8) as pool:
        jobs = [herder.submit(f"{PROMPT} of {i}", tokens=long) for i in range(8)]
        waits = [pool.submit(herder.wait, job, ANSWER_S) for job in jobs]
        answering(up, jobs[0])
        pid = up.kill("redis")
        up.until_restarted("redis", pid)
        assert [wait.result().status for wait in waits] == ["succeeded"] * 8
    closed_books(up, [job.id for job in jobs])
    assert {name: up.pid_of(name) for name in others} == others  # they waited for it


def test_the_courier_killed(up: Up) -> None:
    pid = up.kill("courier")
    up.until_restarted("courier", pid)
    with up.client() as herder:
        job = herder.run(PROMPT, tokens=8, timeout=ANSWER_S)
    closed_books(up, [job.id])


def test_the_supervisor_killed_and_the_herd_started_again(up: Up, long: int) -> None:
    with up.client() as herder:
        jobs = [herder.submit(f"{PROMPT} in {i}", tokens=long) for i in range(10)]
    answering(up, jobs[0])
    parts = [pid for _, pid in up.processes()]
    up.tell(signal.SIGKILL)
    assert up.ended() == -signal.SIGKILL
    up.start()
    until(lambda: not any(map(alive, parts)), "what the first one started is gone")
    with up.client() as herder:
        assert [herder.wait(job, ANSWER_S).status for job in jobs] == ["succeeded"] * 10
    closed_books(up, [job.id for job in jobs])
    up.stop()
