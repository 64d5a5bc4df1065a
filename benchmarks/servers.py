"""The two servers that are compared, each started as its users start it: `herder up`, and llama.cpp's llama-server.

With the same model, slots, context, threads and OpenMP policy. Of llama-server's own settings the best of a small grid
are taken, by what a benchmark measures with each. What is compared can be changed by the environment, for machines
with a GPU: BENCH_MODEL (`100m` or `8b`), BENCH_GPU_LAYERS, BENCH_THREADS, BENCH_CLIENTS (of `throughput`), and for
the worker's side BENCH_KV_UNIFIED (HERDER_KV_UNIFIED).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx

from benchmarks.callers import Ask, Asked, of_llama_server, of_ring
from benchmarks.models import model
from benchmarks.peers import program
from benchmarks.report import Report
from herder.ports import free_port
from herder.settings import OnOff, cores
from tests.e2e.herd import herd

MODEL = os.environ.get("BENCH_MODEL", "100m")
GPU_LAYERS = int(os.environ.get("BENCH_GPU_LAYERS", "0"))
KV_UNIFIED = cast("OnOff", os.environ.get("BENCH_KV_UNIFIED", "auto"))
THREADS = int(os.environ.get("BENCH_THREADS") or cores())
CLIENTS = tuple(map(int, os.environ.get("BENCH_CLIENTS", "1,4,16").split(",")))
# Both sides inherit it, and it is what a worker chooses by itself; see docs/decisions/0013-spin.md.
OMP = " ".join(
    f"{name}={os.environ.setdefault(name, value)}"
    for name, value in (("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "1000"))
)
START_S = 300.0
CREDITS = 10**12
NAME = "bench"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """One that is up: how to ask it, its process, and the command line that started it; ours has an admin's key."""

    ask: Ask
    port: int
    pid: int
    command: str
    admin_key: str = ""

    @property
    def cpu_s(self) -> float:
        """Processor time so far of the process and all that it has started, where /proc tells it; else 0."""
        return _cpu_s(self.pid)


@contextlib.contextmanager
def ring(slots: int, context: int, *options: str, **settings: object) -> Iterator[Server]:
    """A whole herd: `slots` of a worker, of `context` tokens each; `settings` over those of the herd."""
    ours: dict[str, object] = {
        "model": f"{NAME}={model(MODEL)}", "slots": slots, "ctx": context, "gpu_layers": GPU_LAYERS,
        "kv_unified": KV_UNIFIED,
        "demo_credits": CREDITS, "rate_limit_per_minute": 10**6, "log_level": "warning", "prompt_bytes_max": 10**6,
    }  # fmt: skip
    ours |= {"threads": THREADS} | settings
    with herd(*options, folder=None, **ours) as up:
        shown = ours | {"model": model(MODEL).name}
        told = " ".join(f"{name.upper()}={value}" for name, value in shown.items())
        port = httpx.URL(up.url).port or 0
        command = f"{OMP} herder up {' '.join(options)} ({told})"
        yield Server(of_ring(port, up.keys["demo"]), port, up.pid, command, up.keys["admin"])


@contextlib.contextmanager
def llama_server(slots: int, context: int, options: Sequence[str]) -> Iterator[Server]:
    """llama-server with as many slots, of `context` tokens each, and `options` of its own."""
    port = free_port("127.0.0.1")
    command = [
        str(program("llama-server")), "--model", str(model(MODEL)), "--host", "127.0.0.1", "--port", str(port),
        "--parallel", str(slots), "--ctx-size", str(slots * context), "--threads", str(THREADS),
        "--threads-batch", str(THREADS), "--gpu-layers", str(GPU_LAYERS if GPU_LAYERS >= 0 else 999),
        "--no-webui", *options,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="llama-server-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=folder
            )
        try:
            _until_healthy(port, process, log)
            shown = shlex.join(["llama-server", "--model", model(MODEL).name, *command[7:]])
            yield Server(of_llama_server(port, cache_prompt=True), port, process.pid, f"{OMP} {shown}")
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def new_account(server: Server) -> str:
    """The key of a new account of our herder, which can pay."""
    headers = {"X-API-Key": server.admin_key}
    base_url, accounts = f"http://127.0.0.1:{server.port}", "/v1/admin/accounts"
    async with httpx.AsyncClient(base_url=base_url, headers=headers, trust_env=False) as client:
        name = f"user-{secrets.token_hex(4)}"
        (await client.post(accounts, json={"id": name, "credits": CREDITS})).raise_for_status()
        key = (await client.post(f"{accounts}/{name}/keys", json={})).raise_for_status().json()
        return str(key["key"])


@contextlib.asynccontextmanager
async def side_by_side(
    report: Report, slots: int, context: int, warm_up: Asked, rounds: int
) -> AsyncIterator[list[tuple[int, Server, str]]]:
    """Both servers, warmed up and noted: (number, server, what its labels begin with) of so many rounds, in turns.

    llama-server has no settings of its own: for what does not depend on them.
    """
    with ring(slots, context) as ours, llama_server(slots, context, ()) as theirs:
        for server in (ours, theirs):
            await server.ask(warm_up)
            report.note(server.command)
        yield [(number, *side) for number in range(rounds) for side in in_turns(number, ours, theirs)]


def in_turns(number: int, ours: Server, theirs: Server) -> list[tuple[Server, str]]:
    """Both sides of a round, with the names of their labels; who goes first changes from round to round."""
    pair = [(ours, "ring"), (theirs, "llama_server")]
    return pair if number % 2 == 0 else pair[::-1]


async def best(
    report: Report,
    slots: int,
    context: int,
    grid: Sequence[Sequence[str]],
    measure: Callable[[Server], Awaitable[float]],
) -> tuple[str, ...]:
    """The options of `grid` with which `measure` (higher is better) finds llama-server best; all are noted."""
    found: dict[tuple[str, ...], float] = {}
    for options in grid:
        with llama_server(slots, context, options) as server:
            found[tuple(options)] = await measure(server)
    for options, value in found.items():
        report.note(
            f"grid of llama-server with {slots} slots: {value:.4g} with {' '.join(options) or 'nothing'}"
        )
    return max(found, key=found.__getitem__)


def _until_healthy(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health").is_success:
                    return
            told = log.read_text("utf-8", "replace")[-2000:]
            assert process.poll() is None, f"llama-server did not start:\n{told}"
            assert time.monotonic() < deadline, f"llama-server is not ready:\n{told}"
            time.sleep(0.1)


def _cpu_s(pid: int) -> float:
    """Of a process and its descendants, those that have ended and were waited for included."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text("utf-8").rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            seconds[int(stat.parent.name)] = sum(map(int, fields[11:15])) / _TICKS
    family = {pid}
    while found := {child for child, parent in parents.items() if parent in family} - family:
        family |= found
    return sum(seconds.get(member, 0.0) for member in family)
