"""Ten thousand prompts in one call: how long until it is accepted, what it costs others, and what a kill -9 costs it.

Real processes: redis-server, `herder serve`, `herder courier`. The herder is killed when half of the answers have come
and started again; whoever reads the results goes on with the last cursor. The worker is scripted and runs here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx

from benchmarks.bench import CARD, MODEL, a_broker, an_ask, settled
from benchmarks.report import Report, percentile
from herder.audit import audit
from herder.batches import Batches
from herder.broker import Broker
from herder.ledger import Ledger
from herder.protocol import WorkerStats
from herder.records import PostingKind, Role

PROMPTS = 10_000
SLOTS = 32
OTHER = "other"
OTHERS = 50
SECRET = "a secret for the benchmark"
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
LIMIT_S = 300.0


async def run(report: Report, rounds: int) -> None:
    """Labels: accept_s, lease_p99_ms, herder_growth_mb, answers_missing, answers_twice, answers_per_s."""
    for _ in range(rounds):
        async with a_broker() as broker:
            with contextlib.ExitStack() as stack:
                await _Round(report, broker, stack).run()
    report.note(
        f"{PROMPTS} prompts through a chat template; leases of another model meanwhile; a worker of {SLOTS} slots; "
        "the herder killed with SIGKILL at half of the answers"
    )


class _Herder:
    """`herder serve` in a process of its own, which may be killed and started again on the same port."""

    def __init__(self, url: str, stack: contextlib.ExitStack) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("HERDER_")} | {
            "HERDER_REDIS_URL": url, "HERDER_KEY_SECRET": SECRET, "HERDER_LOG_LEVEL": "warning",
        }  # fmt: skip
        self._process = self._start("serve", "--port", str(self.port))
        courier = self._start("courier")
        stack.callback(_end, courier)
        stack.callback(lambda: _end(self._process))

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "llama_herder.cli.main", *command], env=self._env)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def again(self) -> None:
        """Start it once more."""
        self._process = self._start("serve", "--port", str(self.port))

    def memory_mb(self, field: str) -> float:
        """VmRSS or VmHWM of the process."""
        text = Path(f"/proc/{self._process.pid}/status").read_text("utf-8")
        return int(text.split(f"{field}:")[1].split()[0]) / 1024


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Round:
    """One run on an empty Redis."""

    def __init__(self, report: Report, broker: Broker, stack: contextlib.ExitStack) -> None:
        self._report = report
        self._broker = broker
        self._herder = _Herder(broker.settings.redis_url, stack)
        self._seen: Counter[int] = Counter()
        self._cursor = 0

    async def run(self) -> None:
        """Submit, feed, answer, kill, answer, count."""
        broker = self._broker
        for model in (MODEL, OTHER):
            card = replace(CARD, model=model, template=TEMPLATE)
            await broker.register_worker(f"w-{model}", card, WorkerStats(SLOTS, 0, 0.0), None)
        for _ in range(OTHERS):
            await broker.submit(replace(await an_ask(broker), model=OTHER))
        _, key = await Ledger(broker, SECRET.encode()).create_key("payer", Role.CLIENT, "")
        async with httpx.AsyncClient(
            base_url=self._herder.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=LIMIT_S,
            trust_env=False,
        ) as client:
            await self._up(client)
            await client.post("/v1/batches", json={"prompts": ["warm", "up"], "tokens": 20, "model": MODEL})
            batch = await self._accept(client)
            working = asyncio.create_task(self._work())
            try:
                began = time.perf_counter()
                await self._read(client, batch, until=PROMPTS // 2)
                self._herder.kill()
                self._herder.again()
                await self._up(client)
                await self._read(client, batch, until=PROMPTS)
                self._report.add("answers_per_s", PROMPTS / (time.perf_counter() - began))
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
        self._report.add("answers_missing", PROMPTS - len(self._seen))
        self._report.add("answers_twice", self._seen.total() - len(self._seen))
        await self._books(batch)

    async def _accept(self, client: httpx.AsyncClient) -> str:
        prompts = [f"Say in one sentence what the number {i} is known for." for i in range(PROMPTS)]
        body = json.dumps({"prompts": prompts, "tokens": 20, "model": MODEL}).encode()
        before = self._herder.memory_mb("VmRSS")
        over = asyncio.Event()
        probe = asyncio.create_task(self._probe(over))
        try:
            began = time.perf_counter()
            reply = await client.post("/v1/batches", content=body)
            self._report.add("accept_s", time.perf_counter() - began)
            assert reply.status_code == 202, reply.text
            batch: str = reply.json()["id"]
            while (await client.get(f"/v1/batches/{batch}")).json()["counts"]["waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            self._report.add("fed_s", time.perf_counter() - began)
        finally:
            over.set()
            leases = await probe
        self._report.add("lease_p99_ms", 1000 * percentile(leases, 0.99))
        self._report.add("herder_growth_mb", self._herder.memory_mb("VmHWM") - before)
        return batch

    async def _probe(self, over: asyncio.Event) -> list[float]:
        """Leases of other jobs, one after the other, for as long as the batch is accepted and fed."""
        seconds = []
        while not over.is_set():
            began = time.perf_counter()
            (lease,) = await self._broker.lease("w-other", OTHER, slots=1, kv_free=10**6, kv_total=10**6)
            seconds.append(time.perf_counter() - began)
            await self._broker.release("w-other", [(lease.job_id, lease.attempt)], died=False)
            await asyncio.sleep(0.002)
        return seconds

    async def _work(self) -> None:
        while True:
            leases = await self._broker.lease("w-scripted", MODEL, slots=SLOTS, kv_free=10**6, kv_total=10**6)
            await asyncio.gather(*(self._broker.settle("w-scripted", settled(lease)) for lease in leases))
            if not leases:
                await asyncio.sleep(0.05)

    async def _read(self, client: httpx.AsyncClient, batch: str, until: int) -> None:
        """Results from the last cursor on, until there are so many."""
        while self._cursor < until:
            with contextlib.suppress(httpx.TransportError):
                async with client.stream(
                    "GET", f"/v1/batches/{batch}/results", params={"cursor": self._cursor}
                ) as reply:
                    async for line in reply.aiter_lines():
                        if line.strip():
                            told = json.loads(line)
                            self._seen[told["index"]] += 1
                            self._cursor = told["cursor"]
                        if self._cursor >= until:
                            return

    async def _up(self, client: httpx.AsyncClient) -> None:
        deadline = time.perf_counter() + 60
        while time.perf_counter() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
        raise AssertionError("the herder is not ready")

    async def _books(self, batch: str) -> None:
        """One hold, nothing left of it, and a clean audit."""
        ledger = Ledger(self._broker, SECRET.encode())
        holds = [p async for p in _postings(ledger) if p == (PostingKind.HOLD, batch)]
        assert len(holds) == 1, holds
        record = await Batches(self._broker).batch(batch)
        assert record is not None
        assert (record.status, record.hold, record.ended) == ("ended", 0, PROMPTS), record
        began = time.perf_counter()
        report = await audit(self._broker)
        self._report.add("audit_s", time.perf_counter() - began)
        assert report.clean, report.problems[:5]


async def _postings(ledger: Ledger) -> AsyncIterator[tuple[PostingKind, str | None]]:
    cursor: str | None = None
    while True:
        page, cursor = await ledger.postings("payer", before=cursor, limit=1_000)
        for posting in page:
            yield posting.kind, posting.batch_id
        if cursor is None:
            return
