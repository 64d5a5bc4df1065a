"""SIGKILL to every part of a herd while a batch is fed and while it is cancelled: each answer once, to the credit."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from herder.embedded import server_command
from herder.lifecycle import Status
from tests.e2e.books import closed_books
from tests.e2e.herd import DEMO, until
from tests.e2e.parts import Part, Parts, in_parts

ITEMS = 2_000
LINE = 300  # so short that feeding goes on for as long as there is something to answer
TOKENS = 8
ANSWERED_S = 120.0


class Herd:
    """A herd in parts with one batch on it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.api, self.url = parts.herder()
        self.courier = parts.courier()
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {parts.keys[DEMO]}"}, timeout=20, trust_env=False
        )
        self.batch = ""
        self.lines: list[dict[str, Any]] = []

    def submit(self) -> None:
        """The batch, as JSON lines."""
        rows = [{"custom_id": f"row-{i}", "prompt": f"[[say:answer {i}]]"} for i in range(ITEMS)]
        reply = self.client.post(
            f"{self.url}/v1/batches",
            params={"tokens": TOKENS + 10},
            content="\n".join(json.dumps(row) for row in rows),
            headers={"content-type": "application/jsonl"},
        )
        assert reply.status_code == 202, reply.text
        self.batch = reply.json()["id"]

    def now(self) -> dict[str, Any] | None:
        """The batch as it is; None while nobody can say."""
        try:
            reply = self.client.get(f"{self.url}/v1/batches/{self.batch}")
        except httpx.TransportError:
            return None
        if reply.status_code != 200:
            assert reply.status_code == 503, reply.text
            return None
        batch: dict[str, Any] = reply.json()
        return batch

    def until(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The batch as soon as it is like this."""

        def found() -> dict[str, Any] | None:
            now = self.now()
            return now if now is not None and condition(now) else None

        batch = until(found, what, ANSWERED_S)
        assert batch is not None
        return batch

    def read(self) -> None:
        """All results, by a reader that comes back with its cursor whenever it is cut off."""
        pause = threading.Event()
        while len(self.lines) < ITEMS:
            cursor = self.lines[-1]["cursor"] if self.lines else 0
            try:
                with self.client.stream(
                    "GET", f"{self.url}/v1/batches/{self.batch}/results", params={"cursor": cursor}
                ) as reply:
                    if reply.status_code == 200:
                        self.lines.extend(json.loads(line) for line in reply.iter_lines() if line)
            except httpx.TransportError:
                pause.wait(0.1)

    # --- kills -------------------------------------------------------------------------------------------

    def kill_api(self) -> None:
        """The herder; another takes its place."""
        self.api.end()
        self.api, _ = self.parts.herder(int(self.url.rpartition(":")[2]))

    def kill_courier(self) -> None:
        """The courier; another takes its place."""
        self.courier.end()
        self.courier = self.parts.courier()

    def kill_redis(self) -> None:
        """Redis; it comes back with what is on its disk."""
        (redis,) = [part for part in self.parts.parts if part.name.startswith("redis") and _lives(part)]
        redis.end()
        self.parts._part("redis", *server_command(self.parts.folder))
        until(lambda: self.now() is not None, "Redis is back")

    def finish(self, reading: Future[None]) -> None:
        """Wait for the last answer. A courier that ended with its Redis is started again, as by a supervisor;

        one that had only just begun may have outlived it, and is left to show that it works.
        """

        def read_or_mended() -> bool:
            if not _lives(self.courier):
                self.courier = self.parts.courier()
            return reading.done()

        until(read_or_mended, "all answers are read", ANSWERED_S)
        reading.result()


def _lives(part: Part) -> bool:
    return part.process.poll() is None


@contextmanager
def herd_with_batch() -> Iterator[Herd]:
    with in_parts(queue_depth_max=LINE, model="fake=x", lease_ms=3_000) as parts:
        herd = Herd(parts)
        with herd.client:
            yield herd


def _fed(share: float) -> Callable[[dict[str, Any]], bool]:
    return lambda now: now["counts"]["waiting"] <= ITEMS * (1 - share)


def books(herd: Herd) -> dict[str, Any]:
    """The batch at its end: every answer told once, nothing held, the audit clean, each job as it was told."""
    batch = herd.until("the batch has ended", lambda now: now["status"] == "ended")
    assert sorted(line["index"] for line in herd.lines) == list(range(ITEMS))
    assert [line["cursor"] for line in herd.lines] == list(range(1, ITEMS + 1))
    assert all(line["custom_id"] == f"row-{line['index']}" for line in herd.lines)
    records = closed_books(herd.parts, [line["job_id"] for line in herd.lines])
    assert len(records) == ITEMS
    for line in herd.lines:
        record = records[line["job_id"]]
        assert (record.status.value, record.captured, record.refunded) == (
            line["status"], line["captured"], line["refunded"],
        )  # fmt: skip
    assert (batch["held"], batch["captured"] + batch["refunded"]) == (0, batch["fee"])
    assert batch["captured"] == sum(line["captured"] for line in herd.lines)
    statuses = Counter(line["status"] for line in herd.lines)
    assert {name: n for name, n in batch["counts"].items() if n} == statuses
    return batch


@pytest.mark.timeout(400)
def test_every_answer_once_through_kills_while_it_is_fed() -> None:
    with herd_with_batch() as herd, ThreadPoolExecutor(1) as pool:
        herd.parts.worker("--engine", "fake", "--slots", "16")
        herd.submit()
        reading = pool.submit(herd.read)
        for kill, share in ((herd.kill_api, 0.1), (herd.kill_courier, 0.3), (herd.kill_redis, 0.5)):
            now = herd.until(f"{share:.0%} are in line", _fed(share))
            assert now["counts"]["waiting"], "all was fed before the kill"
            kill()
        herd.finish(reading)
        batch = books(herd)
        assert batch["counts"]["succeeded"] == ITEMS
        assert all(line["result"]["text"] == f"answer {line['index']}" for line in herd.lines)


@pytest.mark.timeout(400)
def test_a_cancel_goes_on_through_kills() -> None:
    with herd_with_batch() as herd, ThreadPoolExecutor(1) as pool:
        herd.parts.worker("--engine", "fake", "--slots", "4", "--fake-step-ms", "5")
        herd.submit()
        reading = pool.submit(herd.read)
        herd.until("some are answered, some in line, some not", lambda now: now["counts"]["succeeded"] >= 5)
        assert herd.client.delete(f"{herd.url}/v1/batches/{herd.batch}").json()["status"] == "cancelling"
        killed_at: list[tuple[str, int]] = []
        for kill in (herd.kill_api, herd.kill_courier, herd.kill_redis):
            before = herd.until("it can be read", lambda _: True)
            killed_at.append((before["status"], before["counts"]["cancelled"]))
            kill()
        assert killed_at[0][0] == "cancelling"
        herd.finish(reading)
        batch = books(herd)
        assert batch["counts"]["succeeded"] + batch["counts"]["cancelled"] == ITEMS
        assert batch["counts"]["cancelled"] >= ITEMS / 2
        ended = {line["status"] for line in herd.lines}
        assert ended == {Status.SUCCEEDED.value, Status.CANCELLED.value}
