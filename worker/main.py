"""`herder-worker`: serve one model from this process until it is told to stop.

Reads the settings, finds and checks the model, connects, and hands over to the runner. The exit code tells a
supervisor whether starting again can help.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from herder import logs
from herder.broker import connect
from herder.doorbell import Doorbell
from herder.errors import RedisUnavailable, SetupError
from herder.gpus import seen_by
from herder.settings import Settings
from herder.sources import unknown_variables
from worker import models, sandbox, waiting
from worker.cards import check_template, model_card, template_for, vocabulary
from worker.digests import read_allowed
from worker.engine import Engine, ModelUnusable
from worker.fake import FakeEngine
from worker.flags import parser, settings_under
from worker.gguf import Header
from worker.leases import Leases, RedisGone
from worker.runner import Options, Runner
from worker.tuning import wanted_of
from worker.turn import Turn

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
    """What this worker is to be: the settings with the flags over them, and what has no setting.

    Without a `spec` it waits for a model, which will be called `name` if that is given.
    """

    settings: Settings
    spec: models.ModelSpec | None
    name: str | None
    template_flag: str
    allowed: frozenset[str] | None
    template: str | None
    worker_id: str
    supervised: bool
    turn: Turn
    gpus_seen: dict[str, str]
    fake: bool
    fake_step_ms: float


def read_plan(arguments: list[str]) -> Plan:
    """Flags over settings. Raises ValueError, whose message says what to do."""
    flags = parser().parse_args(arguments)
    settings = settings_under(flags)
    if not settings.redis_url:
        raise ValueError("a worker needs a Redis: give --redis-url or HERDER_REDIS_URL, or use `herder up`")
    plan = Plan(
        settings=settings,
        spec=None,
        name=flags.name,
        template_flag=flags.template or "",
        allowed=read_allowed(settings.model_sha256),
        template=None,
        worker_id=flags.id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
        supervised=flags.supervised,
        turn=Turn(flags.turn_lock),
        # A supervisor has chosen already what its worker sees.
        gpus_seen={} if flags.supervised else _gpus_seen(settings.gpu),
        fake=flags.engine == "fake",
        fake_step_ms=flags.fake_step_ms,
    )
    model = settings.model[0] if settings.model else ""
    return with_model(plan, model) if model else plan


def with_model(plan: Plan, model: str) -> Plan:
    """The plan for this model, written as HERDER_MODEL is. Raises ValueError."""
    spec = models.parse_spec(model)
    if plan.name:
        spec = models.parse_spec(f"{plan.name}={spec.source}")
    of, given, _ = plan.template_flag.partition("=")
    # A setting may be meant for several workers; a flag is for this one.
    if given and of != spec.name:
        raise ValueError(f"--template {plan.template_flag}: no model here is called {of}; it is {spec.name}")
    return replace(plan, spec=spec, template=template_for(spec.name, plan.settings.template))


def appointed(plan: Plan) -> Plan | None:
    """Wait for the model of a plan without one; None where the process is to stop first.

    Raises ModelUnusable (what was chosen is no model's name), RedisUnavailable, SetupError.
    """
    model = asyncio.run(waiting.chosen(plan.settings, plan.worker_id))
    if model is None:
        return None
    try:
        return with_model(plan, model)
    except ValueError as error:
        raise ModelUnusable(str(error)) from error


def _gpus_seen(gpus: tuple[str, ...]) -> dict[str, str]:
    """Variables that show this process its GPUs. Raises ValueError."""
    if len(gpus) > 1:
        raise ValueError(
            f"--gpu {','.join(gpus)} is for {len(gpus)} workers: start one for each, write {'+'.join(gpus)} for one "
            "over all, or use `herder up`"
        )
    return seen_by(gpus[0], os.environ) if gpus else {}


def open_engine(plan: Plan) -> tuple[Engine, Header | None]:
    """Find, check and load the model, in the sandbox if there is to be one. Raises ModelUnusable, SandboxError."""
    settings, spec = plan.settings, plan.spec
    assert spec is not None
    os.environ.update(plan.gpus_seen)
    if plan.fake:
        if settings.sandbox:
            sandbox.enter(sandbox.tcp_port(settings.redis_url))
        engine = FakeEngine(slots=settings.slots, context=settings.ctx or 4096, step_ms=plan.fake_step_ms)
        return engine, None
    find = models.locate_apart if settings.sandbox else models.locate
    if spec.source.startswith("hf:"):  # may take long, and is tried several times before it is given up
        log.info("fetching the model, unless it is here", model=spec.source)
    path = find(spec, settings.data_dir)
    # From here on a stranger's file is read.
    if settings.sandbox:
        sandbox.enter(sandbox.tcp_port(settings.redis_url))
    wanted = wanted_of(settings)
    header = models.check(path, plan.allowed, wanted)
    # Native and slow to load: only a worker that has a sound model pays for it.
    from worker.llama import LlamaEngine

    engine_of = LlamaEngine(Path(path), **wanted.arguments)
    # In a thread that ends: OpenMP keeps helpers for each thread that has computed, and where there are more of them in
    # a process than cores, none spins any more before it sleeps.
    with ThreadPoolExecutor(1) as once:
        once.submit(engine_of.warm).result()
    return engine_of, header


async def serve(plan: Plan, engine: Engine, header: Header | None) -> Runner:
    """Run until stopped; the runner that has stopped."""
    settings, spec = plan.settings, plan.spec
    assert spec is not None
    broker = await connect(settings)
    try:
        async with Doorbell(broker.redis) as bell:
            card = model_card(spec.name, engine.facts, plan.template)
            if plan.template is not None:
                await check_template(card)
            leases = Leases(broker, plan.worker_id, card, vocabulary(header) if header else None)
            options = Options(
                lease_ms=settings.lease_ms,
                drain_ms=settings.drain_ms,
                queue_bell=broker.keys("queue_bell", card.model),
                worker_bell=broker.keys("worker_bell", plan.worker_id),
                watchdog_ms=settings.watchdog_ms,
                recycle_jobs=settings.recycle_jobs,
                recycle_growth_mb=settings.recycle_growth_mb,
                turn=plan.turn,
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
    for name in () if plan.supervised else unknown_variables():
        print(f"warning: {name} is no setting of the herd; is it mistyped?", file=sys.stderr)
    logs.configure(plan.settings)
    waited = plan.spec is None
    try:
        found = appointed(plan) if waited else plan
        if found is None:
            return 0
        plan = found
        engine, header = open_engine(plan)
    except ModelUnusable as error:
        print(f"herder-worker: {error}", file=sys.stderr)
        if waited:
            asyncio.run(waiting.tell_failed(plan.settings, plan.worker_id, str(error)))
        # Another one may be chosen; a process that has entered a sandbox cannot leave it for that.
        return EXIT_FRESH if waited and plan.supervised else EXIT_BAD_MODEL
    except (sandbox.SandboxError, SetupError) as error:
        print(f"herder-worker: {error}", file=sys.stderr)
        if waited:
            asyncio.run(waiting.tell_failed(plan.settings, plan.worker_id, str(error)))
        return EXIT_USAGE
    except RedisUnavailable as error:
        print(f"herder-worker: {error}", file=sys.stderr)
        return EXIT_NO_REDIS
    return _served(plan, engine, header)


def _served(plan: Plan, engine: Engine, header: Header | None) -> int:
    """Serve with an engine that is open; the exit code."""
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
