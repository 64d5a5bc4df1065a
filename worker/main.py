"""`herder-worker`: serve one model from this process until it is told to stop.

Reads the settings, finds and checks the model, connects, and hands over to the runner. The exit code tells a
supervisor whether starting again can help.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from herder import logs
from herder.broker import connect
from herder.doorbell import Doorbell
from herder.errors import RedisUnavailable, SetupError
from herder.settings import Settings
from worker import models, sandbox
from worker.cards import model_card, vocabulary
from worker.digests import read_allowed
from worker.engine import Engine, ModelUnusable
from worker.fake import FakeEngine
from worker.gguf import Header
from worker.leases import Leases, RedisGone
from worker.runner import Options, Runner

EXIT_CRASHED = 1
EXIT_USAGE = 2
"""What was asked for cannot be done; the same command will fail again."""
EXIT_BAD_MODEL = 3
"""The model cannot be served; starting again will not help until the file is another."""
EXIT_NO_REDIS = 4
"""Redis could not be reached; starting again may help."""
EXIT_FRESH = 6
"""It has left, and a fresh process is to take its place at once; without a supervisor of ours it is 0."""

log = logs.get_logger("worker.main")


@dataclass(frozen=True)
class Plan:
    """What this worker is to be: the settings with the flags over them, and what has no setting."""

    settings: Settings
    spec: models.ModelSpec
    allowed: frozenset[str] | None
    worker_id: str
    supervised: bool
    fake: bool
    fake_step_ms: float


def parser() -> argparse.ArgumentParser:
    """The flags; each falls back to its setting (HERDER_… or `.env`)."""
    p = argparse.ArgumentParser(prog="herder-worker", description="Serve one model of a herd.")
    p.add_argument("--model", help="herd-tiny, a .gguf file, hf:owner/repo/file.gguf, or name=any of these")
    p.add_argument("--name", help="the model's name in the herd (default: the file's)")
    p.add_argument("--id", help="this worker's id (default: host, process and a random part)")
    p.add_argument("--data-dir", type=Path, help="where downloaded models are kept")
    p.add_argument("--redis-url", help="redis://, rediss:// or unix:// URL")
    p.add_argument("--slots", type=int, help="jobs decoded at once")
    p.add_argument(
        "--ctx", type=int, help="most tokens (prompt + answer) of one job; 0: the model's, at most 4096"
    )
    p.add_argument("--threads", type=int, help="threads; 0: every core")
    p.add_argument("--gpu-layers", type=int, help="layers on the GPU; -1: all")
    p.add_argument("--drain-ms", type=int, help="how long a stopping worker finishes jobs")
    p.add_argument("--sha256", help="SHA-256 digests that the model file may have, or files of them")
    p.add_argument(
        "--sandbox", action="store_true", default=None, help="write nowhere, connect to nothing but Redis"
    )
    p.add_argument(
        "--engine", choices=("llama", "fake"), default="llama", help="fake: scripted answers, for tests"
    )
    p.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--fake-step-ms", type=float, default=0.0, help=argparse.SUPPRESS)
    return p


def read_plan(arguments: list[str]) -> Plan:
    """Flags over settings. Raises ValueError, whose message says what to do."""
    flags = parser().parse_args(arguments)
    names = {"redis_url": flags.redis_url, "slots": flags.slots, "ctx": flags.ctx, "threads": flags.threads}
    names |= {"gpu_layers": flags.gpu_layers, "drain_ms": flags.drain_ms, "model_sha256": flags.sha256}
    names |= {"sandbox": flags.sandbox, "data_dir": flags.data_dir}
    names["model"] = (flags.model,) if flags.model else None
    try:
        settings = Settings(**{name: value for name, value in names.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
        ) from error
    if not settings.redis_url:
        raise ValueError("a worker needs a Redis: give --redis-url or HERDER_REDIS_URL, or use `herder up`")
    spec = models.parse_spec(settings.model[0])
    if flags.name:
        spec = models.parse_spec(f"{flags.name}={spec.source}")
    worker_id = flags.id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    allowed = read_allowed(settings.model_sha256)
    return Plan(
        settings, spec, allowed, worker_id, flags.supervised, flags.engine == "fake", flags.fake_step_ms
    )


def open_engine(plan: Plan) -> tuple[Engine, Header | None]:
    """Find, check and load the model, in the sandbox if there is to be one. Raises ModelUnusable, SandboxError."""
    settings = plan.settings
    if plan.fake:
        if settings.sandbox:
            sandbox.enter(sandbox.tcp_port(settings.redis_url))
        engine = FakeEngine(slots=settings.slots, context=settings.ctx or 4096, step_ms=plan.fake_step_ms)
        return engine, None
    find = models.locate_apart if settings.sandbox else models.locate
    path = find(plan.spec, settings.data_dir)
    # From here on a stranger's file is read.
    if settings.sandbox:
        sandbox.enter(sandbox.tcp_port(settings.redis_url))
    header = models.check(path, plan.allowed)
    # Native and slow to load: only a worker that has a sound model pays for it.
    from worker.llama import LlamaEngine

    engine_of = LlamaEngine(
        Path(path),
        slots=settings.slots,
        context=settings.ctx,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
    )
    engine_of.warm()
    return engine_of, header


async def serve(plan: Plan, engine: Engine, header: Header | None) -> Runner:
    """Run until stopped; the runner that has stopped."""
    settings = plan.settings
    broker = await connect(settings)
    try:
        async with Doorbell(broker.redis) as bell:
            card = model_card(plan.spec.name, engine.facts)
            leases = Leases(broker, plan.worker_id, card, vocabulary(header) if header else None)
            options = Options(
                lease_ms=settings.lease_ms,
                drain_ms=settings.drain_ms,
                queue_bell=broker.keys("queue_bell", card.model),
                worker_bell=broker.keys("worker_bell", plan.worker_id),
                watchdog_ms=settings.watchdog_ms,
                recycle_jobs=settings.recycle_jobs,
                recycle_growth_mb=settings.recycle_growth_mb,
            )
            runner = Runner(engine, leases, bell, options)
            loop = asyncio.get_running_loop()
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(name, runner.stop)
            log.info(
                "serving", model=card.model, worker=plan.worker_id, slots=settings.slots, context=card.context
            )
            await runner.run()
            return runner
    finally:
        await broker.close()


def run(arguments: list[str]) -> int:
    """Serve; the exit code. Everything that a person can mend is one line on stderr."""
    try:
        plan = read_plan(arguments)
    except ValueError as error:
        print(f"herder-worker: {error}", file=sys.stderr)
        return EXIT_USAGE
    logs.configure(plan.settings)
    try:
        engine, header = open_engine(plan)
    except ModelUnusable as error:
        print(f"herder-worker: {error}", file=sys.stderr)
        return EXIT_BAD_MODEL
    except sandbox.SandboxError as error:
        print(f"herder-worker: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        runner = asyncio.run(serve(plan, engine, header))
    except SetupError as error:
        print(f"herder-worker: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (RedisUnavailable, RedisGone) as error:
        print(f"herder-worker: {error}", file=sys.stderr)
        return EXIT_NO_REDIS
    except BaseExceptionGroup as group:
        if group.subgroup(RedisGone):
            print(f"herder-worker: {group.exceptions[0]}", file=sys.stderr)
            return EXIT_NO_REDIS
        log.exception("crashed")
        return EXIT_CRASHED
    if not runner.mid_step:
        engine.close()
    return EXIT_FRESH if runner.retired and plan.supervised else 0


def main() -> None:
    """The console script. Leaves without waiting for the engine's thread, which may be wedged in native code."""
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
