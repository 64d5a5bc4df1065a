"""Signals to stop: nothing new is taken, what runs is finished or handed back in time, nothing is paid twice."""

from __future__ import annotations

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from llama_herder import Herder, Job
from tests.e2e.books import closed_books
from tests.e2e.herd import DEMO, Up, herd, short_folder, until
from tests.e2e.readers import Balanced, Read
from tests.e2e.slow_model import tokens_for

LONG_S = 4.0
API_STOP_S = 9.0  # an API that waited for its readers would take ten
ANSWER_S = 100.0
SLOTS = 2
MARGIN_S = 20.0  # what a loaded machine may take on top of the drain: the last step, the last words, the process's end


def busy(herder: Herder, tokens: int) -> tuple[list[Job], list[Job]]:
    """Fill both slots and leave as many in line: (running, queued)."""
    running = [herder.submit(f"Long {i}", tokens=tokens) for i in range(SLOTS)]
    until(lambda: all(herder.job(job.id).status == "running" for job in running), "both run")
    queued = [herder.submit(f"Late {i}", tokens=16) for i in range(SLOTS)]
    return running, queued


def lapses(up: Up, job: Job) -> tuple[str, str]:
    """How often the job's worker went away under it."""
    fields = up.ask(lambda broker: broker.hash_of("job", job.id))
    return fields.get("lapses_alone", "0"), fields.get("lapses_company", "0")


def started_ms(up: Up, job: Job) -> int:
    """When its first attempt began."""
    return int(up.ask(lambda broker: broker.hash_of("job", job.id))["started_ms"])


def handed_back(up: Up) -> int:
    """How many jobs the stopped worker gave back, by its own account."""
    found = re.search(r"handed_back=(\d+)", up.line(r"worker-1 +│.*\] left "))
    assert found
    return int(found[1])


@pytest.mark.parametrize("how", ["finished", "at the deadline", "at once"])
def test_a_stopped_herd_goes_on_where_it_was(slow: str, how: str) -> None:
    settings = {"drain_ms": 100 if how == "at the deadline" else 60_000}
    with (
        short_folder() as folder,
        herd("--slots", str(SLOTS), "--model", slow, folder=folder, **settings) as up,
    ):
        with up.client() as herder:
            long = tokens_for(herder, LONG_S, SLOTS)
            running, queued = busy(herder, long)
        if how == "at once":
            up.tell()
            up.line(r"worker-1 │.*draining")
        told = time.monotonic()
        up.stop()
        took_s = time.monotonic() - told
        assert handed_back(up) == (0 if how == "finished" else SLOTS)
        if how != "finished":
            assert took_s < MARGIN_S
        assert "did not stop within" not in up.told()
        again_ms = time.time() * 1000
        up.start()
        with up.client() as herder:
            ended = [herder.wait(job, ANSWER_S) for job in [*running, *queued]]
        # Nothing was leased after the signal, although slots came free and jobs were in line.
        assert all(started_ms(up, job) >= again_ms for job in queued)
        records = closed_books(up, [job.id for job in ended])
        assert {job.status for job in ended} == {"succeeded"}
        # An answer that the first herd gave is the first attempt's; what was handed back was run again.
        attempts = {records[job.id].attempt for job in running}
        assert attempts == ({1} if how == "finished" else {2})
        assert {records[job.id].attempt for job in queued} == {1}
        assert {lapses(up, job) for job in ended} == {("0", "0")}
        up.stop()


def test_a_worker_that_is_stopped_by_hand_drains_and_another_takes_its_place(slow: str) -> None:
    with herd("--slots", str(SLOTS), "--model", slow) as up:
        with up.client() as herder:
            running, queued = busy(herder, tokens_for(herder, LONG_S, SLOTS))
            pid = up.kill("worker-1", number=15)
            up.until_restarted("worker-1", pid)
            ended = [herder.wait(job, ANSWER_S) for job in [*running, *queued]]
        records = closed_books(up, [job.id for job in ended])
        assert {records[job.id].attempt for job in ended} == {1}
        up.stop()


def test_a_draining_worker_says_so_and_takes_nothing(slow: str) -> None:
    with herd("--slots", str(SLOTS), "--model", slow, drain_ms=60_000) as up:
        with up.client() as herder:
            long = herder.submit("Long", tokens=tokens_for(herder, LONG_S, SLOTS))
            until(lambda: herder.job(long.id).status == "running", "it runs")
            pid = up.kill("worker-1", number=15)
            up.line(r"worker-1 +│.*draining")
            # One slot was free; there is none any more: what counts is what still works.
            until(
                lambda: [(w.slots, w.busy) for w in herder.workers().items] == [(1, 1)], "the list shows it"
            )
            assert 'herder_slots{model="slow"} 1.0' in httpx.get(f"{up.url}/metrics").text
            late = herder.submit("Late", tokens=8)
            ended = [herder.wait(job, ANSWER_S) for job in (long, late)]
            up.until_restarted("worker-1", pid)
        records = closed_books(up, [job.id for job in ended])
        assert {records[job.id].attempt for job in ended} == {1}
        assert started_ms(up, late) >= (records[long.id].ended_ms or 0) > 0
        up.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stream_keeps_no_herd_from_stopping_and_goes_on_at_the_next(slow: str, number: int) -> None:
    with short_folder() as folder, herd("--model", slow, folder=folder, drain_ms=100) as up:
        with up.client() as herder:
            job = herder.submit("Long", tokens=tokens_for(herder, LONG_S, 1))
        urls, read = [up.url], Read()
        with ThreadPoolExecutor(1) as pool, closing(Balanced(urls, up.keys[DEMO])) as client:
            reading = pool.submit(client.follow, job.id, read)
            until(lambda: read.text, "the first words are out")
            told = time.monotonic()
            up.stop(number)
            took_s = time.monotonic() - told
            urls[0] = up.start().url
            reading.result(ANSWER_S)
        print(f"stopped in {took_s:.1f} s")
        assert took_s < API_STOP_S
        assert read.kinds.count("restarted") == 1
        assert (read.job["status"], read.job["attempt"]) == ("succeeded", 2)
        assert read.job["result"]["text"] == read.text
        closed_books(up, [job.id])
        up.stop()


def test_a_herd_that_is_stopped_while_it_starts_ends_cleanly(slow: str) -> None:
    with short_folder() as folder:
        up = Up(folder, "--model", slow)
        try:
            up.launch()
            up.line(r"worker-1 +│ runs as process")
            up.stop()
        finally:
            up.end()
