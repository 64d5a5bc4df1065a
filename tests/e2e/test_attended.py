"""Callers of other people's APIs cannot come back for an answer: when their herder is killed, the rest is refunded."""

from __future__ import annotations

from collections.abc import Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from herder.lifecycle import LIVE, Status
from tests.e2e.books import closed_books
from tests.e2e.herd import DEMO, Up, herd, until
from tests.e2e.slow_model import NAME, tokens_for

LONG_S = 30.0
PRESENCE_MS = 1_500
BODY = {
    "model": NAME,
    "messages": [{"role": "user", "content": "Tell me everything"}],
    "temperature": 0,
}  # the likeliest token never ends it


@pytest.fixture(scope="module")
def up(slow: str) -> Iterator[Up]:
    with herd("--model", slow, presence_ms=PRESENCE_MS) as running:
        yield running


@pytest.fixture(scope="module")
def long(up: Up) -> int:
    """Tokens that take far longer than a presence lasts."""
    with up.client() as herder:
        return tokens_for(herder, LONG_S, 1)


def _ask(up: Up, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {up.keys[DEMO]}"}
    return httpx.post(f"{up.url}/v1/chat/completions", json=BODY | body, headers=headers, timeout=100)


def _ready(up: Up) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{up.url}/readyz").status_code == 200
    return False


def _jobs(up: Up) -> dict[str, Status]:
    """The demo account's jobs, asked of Redis: the API may be starting again."""
    records, _ = up.ask(lambda broker: broker.jobs(DEMO, before=None, limit=100))
    return {record.job_id: record.status for record in records}


def _running(up: Up, known: Container[str]) -> str:
    """The id of the job that was not known and is being answered."""

    def found() -> str | None:
        fresh = (job for job, status in _jobs(up).items() if job not in known and status is Status.RUNNING)
        return next(fresh, None)

    return until(found, "the answer is being made") or ""


@pytest.mark.parametrize("stream", [False, True])
def test_a_killed_herder_takes_its_callers_jobs_with_it(up: Up, long: int, stream: bool) -> None:
    known = _jobs(up)
    with ThreadPoolExecutor(1) as pool:
        asked: Future[httpx.Response] = pool.submit(_ask, up, max_tokens=long, stream=stream)
        job = _running(up, known)
        pid = up.kill("api")
        with pytest.raises(httpx.TransportError):
            asked.result(100)
        up.until_restarted("api", pid)
    until(lambda: _ready(up), "the API is back")
    until(lambda: _jobs(up)[job] not in LIVE, "nobody waits for it")
    record = closed_books(up, [job])[job]
    assert record.status is Status.CANCELLED
    assert 0 < (record.refunded or 0) < record.fee
    assert record.captured == record.fee - (record.refunded or 0)


def test_a_caller_who_hangs_up_pays_for_what_there_was(up: Up, long: int) -> None:
    known = _jobs(up)
    with up.client() as herder:
        headers = {"Authorization": f"Bearer {up.keys[DEMO]}"}
        body = BODY | {"max_tokens": long, "stream": True}
        with httpx.stream(
            "POST", f"{up.url}/v1/chat/completions", json=body, headers=headers, timeout=100
        ) as reply:
            lines = reply.iter_lines()  # which hangs up when it goes
            next(lines)
            job = _running(up, known)
        ended = herder.wait(job, 60)
    assert ended.status == "cancelled"
    assert 0 < (ended.captured or 0) < ended.fee
    closed_books(up, [job])
