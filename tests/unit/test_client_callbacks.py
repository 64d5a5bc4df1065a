"""Callbacks, sans network: who is told what, who is not and is named, and how many wait in few threads or tasks."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest

import llama_herder
from llama_herder import AsyncHerder, Herder, Job, _callbacks
from tests.unit.chat_script import BOTH, URL, WAIT_S, Heard, Script, use

FAILED = {"status": "failed", "error": {"code": "engine_error", "message": "it broke"}}
RUNNING = {"status": "running"}
GOOD = {"status": "succeeded"}

Kind = type[Herder | AsyncHerder]


@BOTH
def test_on_answer_waits_and_tells(kind: Kind) -> None:
    script = Script(answers=[RUNNING, RUNNING, GOOD])
    heard = Heard()
    use(kind, script, lambda herder: herder.on_answer("job_7", heard) and None)  # closing waits
    assert [job.text for job in heard.wait()] == ["answer 7"]


@BOTH
def test_without_an_answer_the_error_is_told_or_logged(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    heard, never = Heard(), Heard()
    use(
        kind,
        Script(answers=[FAILED]),
        lambda herder: herder.on_answer("job_1", never, on_error=heard) and None,
    )
    (error,) = heard.wait()
    assert isinstance(error, llama_herder.JobFailed)
    assert caplog.records == []
    use(kind, Script(answers=[FAILED]), lambda herder: herder.on_answer("job_1", never) and None)
    assert "no answer of job_1: job_1 failed: it broke" in caplog.text
    assert never.all == []


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (0, llama_herder.InvalidRequest),
        (None, llama_herder.InvalidRequest),
        ("5", TypeError),
        (-1, llama_herder.InvalidRequest),
    ],
)
@BOTH
def test_a_client_without_a_usable_timeout_is_refused(
    kind: Kind, timeout: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timeout must be"):
        kind(URL, "hk", timeout=timeout)


@BOTH
def test_a_callback_that_fails_is_logged_and_ends_nothing(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def two(herder: Any) -> None:
        herder.on_answer("job_1", lambda job: 1 / 0)
        if kind is Herder:
            herder.on_answer("job_3", lambda job: sys.exit(1))
        herder.on_answer("job_2", heard)

    use(kind, Script(), two)
    assert [job.id for job in heard.wait()] == ["job_2"]
    assert "the callback for job_1 failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_coroutine_is_awaited() -> None:
    told: list[str] = []

    async def callback(job: Job) -> None:
        await asyncio.sleep(0)
        told.append(job.text)

    async def ask(herder: AsyncHerder) -> None:
        await herder.on_answer(await herder.submit("hi", 5), callback)

    use(AsyncHerder, Script(), ask)
    assert told == ["answer 1"]


def test_many_jobs_take_turns_in_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_callbacks, "THREADS_MAX", 3)
    heard = Heard()
    seen: set[str] = set()

    def wait(job_id: str, timeout: float) -> Job:
        assert threading.active_count() < 20
        if job_id not in seen:  # the first turn of each brings nothing
            seen.add(job_id)
            raise llama_herder.WaitTimeout("not yet", job_id, Job(id=job_id))
        return Job(id=job_id, status="succeeded")

    callbacks = _callbacks.Callbacks(wait)
    for at in range(50):
        callbacks.add(_callbacks.Expected(f"job_{at}", heard))
    callbacks.leave()
    assert sorted(job.id for job in heard.all) == sorted(f"job_{at}" for at in range(50))
    with pytest.raises(RuntimeError, match="the client is closed, so nobody waits for job_51"):
        callbacks.add(_callbacks.Expected("job_51", heard))


def test_many_tasks_take_turns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_herder._async_chat.TURN_S", 0.001)
    monkeypatch.setattr("llama_herder._async.WAITS_MAX", 3)
    heard: list[str] = []

    class Last(Script):
        """The first three jobs end after all others."""

        def _job(self, job_id: str) -> dict[str, Any]:
            late = job_id in {"job_0", "job_1", "job_2"} and len(heard) < 7
            return {"id": job_id, "status": "running" if late else "succeeded"}

    async def ask(herder: AsyncHerder) -> None:
        for at in range(10):
            herder.on_answer(f"job_{at}", lambda job: heard.append(job.id))

    use(AsyncHerder, Last(), ask)
    assert sorted(heard) == [f"job_{at}" for at in range(10)]
    assert set(heard[-3:]) == {"job_0", "job_1", "job_2"}


def test_what_is_not_waited_for_is_named(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def wait(job_id: str, timeout: float) -> Job:
        assert ended.wait(WAIT_S)
        return Job(id=job_id, status="succeeded")

    heard = Heard()
    callbacks = _callbacks.Callbacks(wait)
    callbacks.add(_callbacks.Expected("job_1", heard))
    callbacks.leave(limit_s=0.05)
    assert "not waited for: job_1; paid for all the same" in caplog.text
    ended.set()


def test_a_block_that_an_exception_ends_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    def failing(herder: Herder) -> None:
        herder.on_answer("job_1", print)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        use(Herder, Script(answers=[RUNNING]), failing)
    assert "not waited for: job_1" in caplog.text

    async def failing_too(herder: AsyncHerder) -> None:
        herder.on_answer("job_2", print)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        use(AsyncHerder, Script(answers=[RUNNING]), failing_too)
    assert "not waited for: job_2" in caplog.text


def test_a_close_that_is_cancelled_closes_the_connections() -> None:
    async def ask(herder: AsyncHerder) -> None:
        herder.on_answer("job_1", print)
        closing = asyncio.create_task(herder.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert herder._client.is_closed

    use(AsyncHerder, Script(answers=[RUNNING]), ask)


FORKED = """
import os, sys, httpx
from llama_herder import Herder
running = httpx.MockTransport(lambda request: httpx.Response(200, json={"id": "job_1", "status": "running"}))
herder = Herder("http://herd.example", "hk", transport=running)
herder.on_answer("job_1", print)
child = os.fork()
if not child:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
herder._callbacks.stop()
"""


def test_the_end_of_a_process_that_was_forked_off_waits_for_nobody() -> None:
    """Its parent does; the threads that wait are the parent's."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout == "7\n"
    assert done.stderr == "not waited for: job_1; paid for all the same, read them later by their ids\n"


def test_a_herder_that_is_gone_for_long_is_given_up() -> None:
    silent = llama_herder.WaitTimeout("no news of job_1", "job_1")
    expected = _callbacks.Expected("job_1", print)
    once = expected.later(silent, 1_000.0)
    assert once.later(silent, 1_299.0) == once
    with pytest.raises(llama_herder.WaitTimeout):
        once.later(silent, 1_300.0)
    assert once.later(llama_herder.WaitTimeout("", "job_1", Job()), 1_400.0).silent_since is None


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("llama_herder._callbacks", "llama_herder._async_chat"):
        monkeypatch.setattr(f"{module}.WAITING_MAX", 0)
    for kind in (Herder, AsyncHerder):
        with pytest.raises(llama_herder.InvalidRequest, match="take `map`"):
            use(kind, Script(), lambda herder: herder.on_answer("job_1", print) and None)
    script = Script()
    with Herder(URL, "hk", transport=httpx.MockTransport(script)) as herder:
        llama_herder.set_default_herder(herder)
        with pytest.raises(llama_herder.InvalidRequest):
            llama_herder.run("hi", 20, print)
        llama_herder.set_default_herder(None)
    assert script.bodies == []  # nothing was paid for


def test_a_logger_of_your_own_hears_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="llama_herder"):
        _callbacks.Expected("job_1", print).failed(llama_herder.NoReply("gone"))
    assert [record.name for record in caplog.records] == ["llama_herder"]
