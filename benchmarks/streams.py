"""A thousand event streams on one `herder serve`: its CPU a token, the delay from log to socket, its connections.

A real herder on a real Redis with a herd's durability; the workers, the readers and, as the peer, a bare subscriber of
the same messages are processes of their own. Rounds in which all read alternate with rounds in which a hundred of the
thousand take nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from benchmarks.bench import CARD, MODEL, an_ask
from benchmarks.report import Report, percentile
from benchmarks.stream_parts import fill
from herder.broker import Broker, connect
from herder.embedded import EmbeddedRedis
from herder.ledger import Ledger
from herder.ports import free_port
from herder.protocol import Lease, WorkerStats
from herder.records import Role
from herder.settings import Settings

STREAMS = 1_000
STUCK = 100
# Seconds of each round; and for how long the memory is held without stuck readers, and with: 600 for the ten minutes.
ROUND_S = float(os.environ.get("BENCH_STREAMS_ROUND_S", "10"))
HOLD_S = float(os.environ.get("BENCH_STREAMS_HOLD_S", "20"))
SETTLE_S = 2.0  # after opening, before measuring
FILLED = (900, "what a reader that takes nothing has not read; ")
SECRET = "a secret for the benchmark"
NAME = "herder-under-test"
NEVER_MS = 10**9  # stuck readers are held, not dropped: that is the worst that they can do
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Bench:
    """What is up: the herder's process and address, a broker, and the jobs that are streamed."""

    pid: int
    port: int
    redis_url: str
    key: str
    broker: Broker
    jobs: list[str]


class Part:
    """A process of `stream_parts`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, name: str, **given: object) -> Part:
        """Start one; readers and the subscriber are to be waited for with `line`."""
        return cls(await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.stream_parts", name, json.dumps(given),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**26,
        ))  # fmt: skip

    def say(self, word: str) -> None:
        """A line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    async def line(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        assert line, "a part of the benchmark ended"
        return line

    async def stop(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()


async def run(report: Report, rounds: int) -> None:
    """Labels: `redis_connections`, `cpu_us_per_token`, `p99_ms`, `p99_with_stuck_readers` (with ÷ without), and
    `memory_with_stuck_readers` (the herder's, held for HOLD_S ÷ after as long before any was stuck).
    """
    async with _bench() as bench:
        first = dict.fromkeys(bench.jobs[-STUCK:], FILLED[0])
        workers = await Part.start("workers", redis_url=bench.redis_url, jobs=bench.jobs, first=first)
        peer = await Part.start("subscriber", redis_url=bench.redis_url)
        await peer.line()
        before = await _round(Report("warm"), bench, peer, stuck=False, seconds=HOLD_S)
        for _ in range(rounds):
            alone = await _round(report, bench, peer, stuck=False)
            crowded = await _round(report, bench, peer, stuck=True)
            report.add("p99_with_stuck_readers", crowded.p99 / alone.p99)
        held = await _round(report, bench, peer, stuck=True, seconds=HOLD_S)
        report.add("memory_with_stuck_readers", held.rss / before.rss)
        for part in (workers, peer):
            await part.stop()
    report.note(
        f"{STREAMS} streams, a token a second each from workers of 16 slots; {STUCK} of them stuck where it says so"
    )
    report.note(
        f"rounds of {ROUND_S:.0f} s; memory after {HOLD_S:.0f} s; the peer is one bare psubscribe, redis-py"
    )


@dataclass(frozen=True)
class _Found:
    p99: float
    rss: int


async def _round(
    report: Report, bench: Bench, peer: Part, *, stuck: bool, seconds: float = ROUND_S
) -> _Found:
    readers = await Part.start(
        "readers", port=bench.port, key=bench.key, jobs=bench.jobs, stuck=STUCK if stuck else 0
    )
    await readers.line()
    await asyncio.sleep(SETTLE_S)
    for part in (readers, peer):
        part.say("begin")
    cpu = _cpu_s(bench.pid)
    await asyncio.sleep(seconds)
    cpu, rss = _cpu_s(bench.pid) - cpu, _rss(bench.pid)
    connections = await _connections(bench)
    for part in (readers, peer):
        part.say("end")
    delays, heard = json.loads(await readers.line()), json.loads(await peer.line())
    await readers.stop()
    report.add("tokens_per_s", len(delays) / seconds)
    p99, name = percentile(delays, 0.99), "_stuck" if stuck else ""
    report.add(f"p99{name}_ms", p99)
    report.add(f"p50{name}_ms", median(delays))
    report.add(f"cpu{name}_us_per_token", cpu / len(delays) * 1e6)
    report.add(f"rss{name}_mb", rss / 2**20)
    report.add("redis_connections", connections)
    report.add("bare_subscriber_p99_ms", percentile(heard, 0.99))
    report.add("p50_over_bare_subscriber", median(delays) / max(median(heard), 0.1))
    await _until_closed(bench)
    return _Found(p99, rss)


@contextlib.asynccontextmanager
async def _bench() -> AsyncIterator[Bench]:
    """A Redis, a herder, and jobs that are running in the hands of a worker."""
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as folder:
        server = EmbeddedRedis(Path(folder))
        url = await server.start()
        broker = await connect(Settings(redis_url=url, queue_depth_max=10**6))
        process = None
        try:
            key = await payer(broker)
            for _ in range(STREAMS):
                await broker.submit(await an_ask(broker))
            leases: list[Lease] = []
            while len(leases) < STREAMS:
                leases += await broker.lease("w", MODEL, slots=200, kv_free=10**7, kv_total=10**7)
            jobs = [lease.job_id for lease in leases]
            await fill(url, leases[-STUCK:], *FILLED)
            port = free_port("127.0.0.1")
            process = await herder(url, port)
            yield Bench(process.pid, port, url, key, broker, jobs)
        finally:
            if process is not None:
                process.terminate()
                await process.wait()
            await broker.close()
            await server.stop()


async def payer(broker: Broker) -> str:
    """The key of an account that can pay for everything, where a model is served."""
    await broker.set_prices(10, 1)
    await broker.register_worker("w", CARD, WorkerStats(STREAMS, 0, 0.0), None)
    ledger = Ledger(broker, SECRET.encode())
    await ledger.create_account("payer")
    await ledger.deposit("payer", 10**12, "bench")
    return (await ledger.create_key("payer", Role.CLIENT, ""))[1]


async def herder(redis_url: str, port: int) -> asyncio.subprocess.Process:
    """`herder serve` in a process of its own, once it answers."""
    settings = {
        "REDIS_URL": f"{redis_url}?client_name={NAME}", "PORT": port, "KEY_SECRET": SECRET, "STREAM_SEND_MS": NEVER_MS,
        "RATE_LIMIT_PER_MINUTE": 10**6, "QUEUE_DEPTH_MAX": 10**6, "LOG_LEVEL": "warning",
    }  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HERDER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llama_herder.cli.main", "serve",
        env=environment | {f"HERDER_{name}": str(value) for name, value in settings.items()},
    )  # fmt: skip
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/healthz")).is_success:
                    return process
            assert process.returncode is None, "the herder did not start"
            await asyncio.sleep(0.1)


async def _until_closed(bench: Bench) -> None:
    """The streams of a round are gone before the next begins."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bench.port}", trust_env=False) as client:
        while "\nherder_streams 0.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def _connections(bench: Bench) -> int:
    """Those that the herder's process has to Redis, by the name that its URL gives them."""
    found = await bench.broker.fetch(bench.broker.redis.client_list())
    return sum(client["name"] == NAME for client in found)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
    assert match
    return int(match[1]) * 1024
