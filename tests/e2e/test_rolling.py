"""A rolling restart under load: herders, couriers and workers are replaced one by one, and nobody loses an answer."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from herder.lifecycle import Status
from llama_herder import Done, Herder, Restarted, Tokens, Unavailable
from tests.e2e.books import closed_books
from tests.e2e.herd import DEMO
from tests.e2e.parts import Part, Parts, in_parts
from tests.e2e.readers import Balanced

READERS, POLLERS, LIBRARY = 8, 3, 3
SLOTS = 6
STEP_MS = 15
TOKENS = (60, 240)
JOBS_LEAST = 60
API_STOP_S = 8.0  # a stop that waited for streams would take ten
FUNDS = 100_000


class Load:
    """Clients that submit and read until told to stop; each checks what it was told against what it got."""

    def __init__(self, parts: Parts, urls: list[str]) -> None:
        self._parts, self._urls = parts, urls
        self.over = threading.Event()
        self.jobs: list[str] = []
        self.cuts = 0
        self.restarts_seen = 0
        self._lock = threading.Lock()

    def reader(self, number: int) -> None:
        """Follows streams at both herders."""
        with self._balanced(number) as client:
            for body, key in self._bodies(f"reader-{number}"):
                job = client.submit(body, key)
                read = client.follow(job)
                assert read.job["status"] == "succeeded", read.job
                assert read.text == read.job["result"]["text"]
                assert len(read.text) == body["tokens"]  # the scripted engine says one byte a token
                places = [tuple(map(int, found.split("-"))) for found in read.ids]
                assert places == sorted(set(places)), "an event came twice, or too late"
                assert read.kinds.count("done") == 1
                self._ended(job, read.cuts, read.kinds.count("restarted"))

    def poller(self, number: int) -> None:
        """Waits for answers at both herders."""
        with self._balanced(number) as client:
            for body, key in self._bodies(f"poller-{number}"):
                job = client.submit(body, key)
                ended = client.wait(job)
                assert ended["status"] == "succeeded", ended
                self._ended(job)

    def library(self, number: int) -> None:
        """Streams with the client library, which knows one address."""
        with Herder(self._urls[number % 2], api_key=self._parts.keys[DEMO]) as herder:
            for body, key in self._bodies(f"library-{number}"):
                while not self._streamed(herder, body, key):
                    self.over.wait(0.1)

    def _streamed(self, herder: Herder, body: dict[str, Any], key: str) -> bool:
        """One answer; False where the herder was away longer than a submission waits. An open stream outlasts it."""
        text, accepted = "", False
        try:
            for event in herder.stream(body["prompt"], body["tokens"], raw=True, idempotency_key=key):
                accepted = True
                if isinstance(event, Restarted):
                    text = ""
                elif isinstance(event, Tokens):
                    text += event.text
                elif isinstance(event, Done):
                    assert (event.job.status, event.job.text) == ("succeeded", text)
                    self._ended(event.job.id)
        except Unavailable:
            if accepted:
                raise
        return accepted

    def _bodies(self, name: str) -> Iterator[tuple[dict[str, Any], str]]:
        dice = random.Random(name)
        number = 0
        while not self.over.is_set():
            number += 1
            body = {"prompt": f"{name} asks {dice.random()}", "tokens": dice.randint(*TOKENS), "raw": True}
            yield body, f"{name}-{number}"

    def _ended(self, job: str, cuts: int = 0, restarts: int = 0) -> None:
        with self._lock:
            self.jobs.append(job)
            self.cuts += cuts
            self.restarts_seen += restarts

    @contextmanager
    def _balanced(self, number: int) -> Iterator[Balanced]:
        client = Balanced(self._urls, self._parts.keys[DEMO], number)
        try:
            yield client
        finally:
            client.close()


def fake_worker(parts: Parts, drain_ms: int) -> Part:
    """A worker of scripted answers."""
    flags = ["--engine", "fake", "--fake-step-ms", str(STEP_MS), "--slots", str(SLOTS)]
    return parts.worker(*flags, "--drain-ms", str(drain_ms))


def handed_back(part: Part) -> int:
    """How many jobs a worker that has left gave back."""
    found = re.search(r"handed_back=(\d+)", part.told())
    assert found, part.told()
    return int(found[1])


@pytest.mark.timeout(300)
def test_a_rolling_restart_loses_no_answer_and_no_stream() -> None:
    with in_parts(rate_limit_per_minute=100_000) as parts, ExitStack() as stack:
        workers = [fake_worker(parts, drain_ms=60_000), fake_worker(parts, drain_ms=100)]
        couriers = [parts.courier(), parts.courier()]
        herders = [parts.herder(), parts.herder()]
        load = Load(parts, [url for _, url in herders])
        pool = stack.enter_context(ThreadPoolExecutor(READERS + POLLERS + LIBRARY))
        stack.callback(load.over.set)
        clients = [pool.submit(load.reader, number) for number in range(READERS)]
        clients += [pool.submit(load.poller, number) for number in range(POLLERS)]
        clients += [pool.submit(load.library, number) for number in range(LIBRARY)]

        # 1. Herders, each in its own place: the other one serves meanwhile.
        for part, url in herders:
            asked = time.monotonic()
            part.terminate()
            part.ended()
            assert time.monotonic() - asked < API_STOP_S, part.told()
            parts.herder(int(url.rpartition(":")[2]))
        # 2. Couriers and workers, the new one first. One worker finishes what it runs, one has no time for that.
        for courier in couriers:
            parts.courier()
            courier.terminate()
            courier.ended()
        for worker in workers:
            fake_worker(parts, drain_ms=60_000)
            worker.terminate()
            worker.ended()
        while len(load.jobs) < JOBS_LEAST and not any(client.done() for client in clients):
            load.over.wait(0.1)
        load.over.set()
        for client in clients:
            client.result()

        check(parts, load, [handed_back(worker) for worker in workers])


def check(parts: Parts, load: Load, back: list[int]) -> None:
    """Each answered once; run again was only what a worker gave back, and that is counted against nobody."""
    records = closed_books(parts, load.jobs, FUNDS)
    assert records.keys() == set(load.jobs)
    assert len(load.jobs) == len(set(load.jobs)) >= JOBS_LEAST
    assert {record.status for record in records.values()} == {Status.SUCCEEDED}
    assert back[0] == 0
    assert sum(record.attempt - 1 for record in records.values()) == back[1] > 0
    assert load.cuts > 0
    for job in load.jobs:
        fields = parts.ask(lambda broker, job=job: broker.hash_of("job", job))  # type: ignore[misc]
        assert {fields.get("lapses_alone", "0"), fields.get("lapses_company", "0")} == {"0"}
    restarted = load.restarts_seen
    print(f"{len(records)} jobs, {load.cuts} streams cut and resumed, {back} handed back, {restarted} seen")
