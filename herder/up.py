"""`herder up`: the whole herd on one machine. Redis, the API, the courier and the workers, each a supervised child.

This is composition: it starts and stops, and hands back the jobs of a worker that died. It serves nothing itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
from typing import Any

import httpx

from herder import environment
from herder.bootstrap import FirstKeys, first_keys, secret_of_herd
from herder.broker import Broker, connect
from herder.embedded import EmbeddedRedis, check_server
from herder.errors import HerderError, SetupError, Unavailable
from herder.ports import check_port, free_port, reachable
from herder.settings import Settings, model_name
from herder.supervisor import EXIT_FRESH, Child, Print, oom_kills, prefixed_printer
from herder.turns import Turns
from herder.waiting import Waiting

READY_S = 120.0
API_STOP_S = 10.0
RELEASE_S = 10.0
RELEASE_PAUSE_S = 0.2  # between looks for a Redis that is away
HAND_BACK_S = 15.0  # beyond the drain: what a worker may take to hand its jobs back


class Herd:
    """A herd that can be started and stopped. `keys` is set after the first start on an empty Redis of our own."""

    def __init__(self, settings: Settings, print_line: Print | None = None) -> None:
        port = settings.port or free_port(settings.host)
        self.settings = settings.model_copy(update={"port": port})
        check_names(settings.model)
        environment.check_gpus(settings.gpu)
        self.keys: FirstKeys | None = None
        self.children: list[Child] = []
        self.broker: Broker | None = None
        self._redis: EmbeddedRedis | None = None
        self._turns = Turns()
        workers = (f"worker-{i}" for i in range(1, self._worker_count() + 1))
        names = ["herd", "redis", "api", "courier", *workers]
        self.print_line = print_line or prefixed_printer(names, as_json=settings.log_json)

    @property
    def url(self) -> str:
        """Where the API is."""
        scheme = "https" if self.settings.tls_cert else "http"
        return f"{scheme}://{reachable(self.settings.host)}:{self.settings.port}"

    async def start(self) -> None:
        """Start everything and wait until the herd can answer. Raises SetupError, with everything stopped again."""
        try:
            await self._start()
        except BaseException as error:
            await self.stop()
            if isinstance(error, Unavailable):  # a Redis that went away meanwhile
                raise SetupError(str(error)) from error
            raise

    async def _start(self) -> None:
        if not self.settings.redis_url:
            self._redis = EmbeddedRedis(self.settings.data_dir, self.print_line)
            self._redis.take_folder()  # before the port: another herd in this folder is likely to have both
        check_port(self.settings.host, self.settings.port)
        if self._redis is None:
            for warning in await check_server(self.settings.redis_url):
                self.print_line("herd", f"WARNING: {warning}")
        else:
            url = await self._redis.start()
            self.settings = self.settings.model_copy(update={"redis_url": url})
            self.print_line("herd", f"Redis runs in {self.settings.data_dir.resolve()}")
        self.broker = await connect(self.settings)
        await secret_of_herd(self.broker, self.settings)  # a lost one is said before anything else is started
        self.children = [self._child("api", "serve"), self._child("courier", "courier"), *self._workers()]
        for child in self.children:
            child.start()
        await self._until_ready()
        # Not before the herd is ready: keys that are made by a start that fails are shown to nobody.
        if self._redis is not None:
            self.keys = await first_keys(self.broker, self.settings)

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Drain the workers, then stop the API, the courier and Redis. `hurry` has the workers hand back at once."""
        workers = [child for child in self.children if child.name.startswith("worker")]
        others = [child for child in self.children if child not in workers]
        for worker in workers:
            worker.signal(signal.SIGTERM)
        if hurry is not None and workers:
            await self._drained_or(hurry, workers)
        grace_s = self.settings.drain_ms / 1000 + HAND_BACK_S
        await asyncio.gather(*(worker.stop(grace_s) for worker in workers))
        await asyncio.gather(*(child.stop(API_STOP_S) for child in others))
        self.children = []
        self._turns.close()
        if self.broker is not None:
            await self.broker.close()
            self.broker = None
        if self._redis is not None:
            await self._redis.stop()

    async def _drained_or(self, hurry: asyncio.Event, workers: list[Child]) -> None:
        """Wait for the workers to drain; a second signal is passed on to them."""
        drained: asyncio.Future[list[int]] = asyncio.gather(*(worker.ended() for worker in workers))
        hurried = asyncio.create_task(hurry.wait())
        grace_s = self.settings.drain_ms / 1000 + HAND_BACK_S
        waits: list[asyncio.Future[Any]] = [drained, hurried]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=grace_s)
        if hurry.is_set():
            for worker in workers:
                worker.signal(signal.SIGTERM)
        for waiting in waits:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    async def ended(self) -> str:
        """Wait until a child has ended for good by itself; says which."""
        waits = {asyncio.create_task(child.ended()): child for child in self.children}
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return ", ".join(f"{waits[task].name} (exit code {task.result()})" for task in done)

    def _worker_count(self) -> int:
        return self.settings.workers * max(len(self.settings.model), 1) * max(len(self.settings.gpu), 1)

    def _workers(self) -> list[Child]:
        """Each model on each GPU, so many times; the first ones are the first model's."""
        gpus, workers = self.settings.gpu or ("",), range(self.settings.workers)
        wanted = [(model, gpu) for model in self.settings.model or ("",) for gpu in gpus for _ in workers]
        return [self._worker(f"worker-{i}", model, gpu) for i, (model, gpu) in enumerate(wanted, 1)]

    def _worker(self, name: str, model: str, gpu: str) -> Child:
        """A worker; each start has an id of its own, so that a dead one's jobs can be told from its heir's."""
        current = {"id": "", "oom_kills": "", "model": model}
        lock = self._turns.another()

        def command() -> list[str]:
            current["id"] = f"{name}-{secrets.token_hex(4)}"
            current["oom_kills"] = oom_kills()
            argv = [sys.executable, "-m", "worker.main", "--supervised", "--turn-lock", str(lock)]
            return [*argv, "--id", current["id"], "--model", current["model"]]

        async def buried(code: int) -> bool:
            broker = self.broker
            assert broker is not None
            was_at_work = any(state.worker == current["id"] for state in await broker.worker_states())
            killed = code == -signal.SIGKILL
            # The kernel's own count tells a kill from outside from one for want of memory.
            outside = killed and oom_kills() == current["oom_kills"] != ""
            died = code not in {0, EXIT_FRESH} and not outside
            taken, quarantined = await broker.release(current["id"], None, died=died, killed=killed)
            await broker.leave(current["id"])
            if not current["model"]:
                current["model"] = await Waiting(broker).inherited(current["id"])
            if taken:
                self.print_line(name, f"jobs taken back: {taken}, of them quarantined: {quarantined}")
            return was_at_work

        async def ended_by_itself(code: int) -> bool:
            # Nobody need wait for the lease: the supervisor knows that its child is dead. And only it can tell which
            # model the heir is to have: so it waits for a Redis that is being started again.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_S):
                    while True:
                        with contextlib.suppress(HerderError):
                            return await buried(code)
                        await asyncio.sleep(RELEASE_PAUSE_S)
            return False

        env = environment.of_worker(self._env(), gpu)
        return Child(name, command, env, self.print_line, ended_by_itself, descriptors=(lock,))

    def _child(self, name: str, command: str) -> Child:
        argv = [sys.executable, "-m", "llama_herder.cli.main", command, "--supervised"]
        return Child(name, lambda: argv, self._env(), self.print_line)

    def _env(self) -> dict[str, str]:
        return environment.of_child(self.settings, self._worker_count())

    async def _until_ready(self) -> None:
        verify = not self.settings.tls_cert
        async with httpx.AsyncClient(
            base_url=self.url, timeout=2.0, verify=verify, trust_env=False
        ) as client:
            reason = "the API does not answer"
            deadline = asyncio.get_running_loop().time() + READY_S
            while asyncio.get_running_loop().time() < deadline:
                for child in self.children:
                    if child.done:
                        raise SetupError(f"{child.name} did not start: {child.last_line}")
                with contextlib.suppress(httpx.TransportError):
                    reply = await client.get("/readyz")
                    # Without workers of its own, or a model, a herd is ready before anybody has brought it one.
                    bare = not self._worker_count() or not self.settings.model
                    if (reply.status_code == 200 or bare) and await self._workers_ready():
                        return
                    reason = f"the API says {reply.text[:200]}"
                await asyncio.sleep(0.1)
        raise SetupError(f"the herd was not ready after {READY_S:.0f} s: {reason}")

    async def _workers_ready(self) -> bool:
        assert self.broker is not None
        if not self.settings.model:
            return len(await Waiting(self.broker).those()) >= self._worker_count()
        return len(await self.broker.worker_states()) >= self._worker_count()


def check_names(models: tuple[str, ...]) -> None:
    """Raises SetupError where two different models would go by one name."""
    named: dict[str, str] = {}
    for model in models:
        name = model_name(model)
        if name in named:
            raise SetupError(f"two models are called {name}: {named[name]} and {model}; name one other=…")
        named[name] = model


def check_templates(settings: Settings) -> None:
    """Raises SetupError where a chat template is for a model that no worker here has."""
    models = [model_name(model) for model in settings.model]
    for choice in settings.template if settings.workers and settings.model else ():
        of, given, _ = choice.partition("=")
        if given and of not in models:
            raise SetupError(
                f"template {choice}: no model here is called {of}; there are: {', '.join(models)}"
            )


async def run(settings: Settings) -> int:
    """Run a herd until a signal, or until a child has ended for good; the exit code."""
    check_templates(settings)
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    # A terminal that is closed stops the herd too, unless it was started with nohup.
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    for number in (signal.SIGINT, signal.SIGTERM, *hangup):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    herd = Herd(settings)
    starting = asyncio.create_task(herd.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return 0
    starting.result()
    announce(herd)
    ended = asyncio.create_task(herd.ended())
    await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if ended.done():
        herd.print_line("herd", f"{ended.result()} has ended; stopping the herd")
        code = 1
    else:
        herd.print_line(
            "herd", "stopping: running jobs are finished first; once more to hand them back at once"
        )
    ended.cancel()
    stopping.cancel()
    await herd.stop(hurry)
    herd.print_line("herd", "stopped")
    return code


def announce(herd: Herd) -> None:
    """Say where the herd is and, once, what opens it."""

    def say(line: str) -> None:
        herd.print_line("herd", line)

    say(f"ready: {herd.url}  (docs: {herd.url}/docs)")
    if not herd.settings.workers:
        say("no workers here: start some with herder-worker, on this Redis")
    elif not herd.settings.model:
        say("the workers wait for a model: HERDER_MODEL is empty, an admin's Init message chooses it")
    if herd.keys is None:
        say("keys are shown only when they are made; `herder admin-key` makes a new admin key")
    else:
        say("")
        say("These keys are shown once; only their HMAC is stored.")
        say(f"  admin key   {herd.keys.admin_key}")
        say(f"  demo key    {herd.keys.demo_key}   (account demo, {herd.settings.demo_credits} credits)")
        say("")
        say("In another terminal, after `source .venv/bin/activate` in the repository:")
        say(f"  export HERDER_URL={herd.url} HERDER_API_KEY={herd.keys.demo_key}")
        say('  herder run "What is a chatbot?" --tokens 40')
        say("")
