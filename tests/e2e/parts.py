"""A herd in parts, as on many machines: one Redis, and herders, couriers and workers that are started one by one.

Each part is a process of the command that an operator would use. Knows them by HTTP, by Redis and by what they print.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from herder.broker import Broker
from herder.embedded import answers, server_command, socket_url
from herder.ledger import Ledger
from herder.ports import free_port
from herder.records import Role
from tests.e2e.books import FUNDS
from tests.e2e.herd import DEMO, STOP_S, Up, clean_environment, short_folder, until

HOST = "127.0.0.1"
SECRET = "a secret for the tests only"
HERDER = (sys.executable, "-m", "llama_herder.cli.main")
WORKER = (sys.executable, "-m", "worker.main")


class Part:
    """One process. What it prints goes to a file."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], *command: str) -> None:
        self.name = name
        self._out = folder / f"{name}.log"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def told(self) -> str:
        """Everything that it printed."""
        return self._out.read_text("utf-8", "replace")

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> None:
        """Wait until it has ended as it should: with 0, or by the signal that it was sent (uvicorn's way)."""
        assert self.process.wait(STOP_S) in {0, -signal.SIGTERM}, f"{self.name}:\n{self.told()}"

    def end(self) -> None:
        """By force."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_S)


class Parts(Up):
    """Everything on one Redis. `ask` and `client` are those of a herd that is started whole."""

    def __init__(self, folder: Path, **settings: object) -> None:
        url = socket_url(folder)
        super().__init__(folder, redis_url=url, key_secret=SECRET, data_dir=folder, **settings)
        self.parts: list[Part] = []
        self._numbers: dict[str, int] = {}

    def open(self) -> Parts:
        """Redis, and the account with its key."""
        self._part("redis", *server_command(self.folder))
        until(lambda: asyncio.run(answers(socket_url(self.folder))), "Redis answers")
        self.keys[DEMO] = self.ask(_funded)
        return self

    def close(self) -> None:
        """Whatever happened: nothing of it is left."""
        for part in reversed(self.parts):
            part.end()

    def herder(self, port: int = 0) -> tuple[Part, str]:
        """A replica of the API that answers, and where: on a port of its own, or in the place of another."""
        port = port or free_port(HOST)
        url = f"http://{HOST}:{port}"
        part = self._part("herder", *HERDER, "serve", "--host", HOST, "--port", str(port))
        until(lambda: part.process.poll() is not None or _healthy(url), f"{part.name} answers")
        assert part.process.poll() is None, part.told()
        return part, url

    def courier(self) -> Part:
        """A courier at work."""
        part = self._part("courier", *HERDER, "courier")
        until(lambda: "courier ready" in part.told(), f"{part.name} is ready")
        return part

    def worker(self, *flags: str) -> Part:
        """A worker that is on the list."""
        name = self._name("worker")
        part = self._part(name, *WORKER, "--id", name, *flags)

        async def there(broker: Broker) -> bool:
            return any(state.worker == name for state in await broker.worker_states())

        until(lambda: self.ask(there), f"{name} is on the list")
        return part

    def _name(self, kind: str) -> str:
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        return f"{kind}-{self._numbers[kind]}"

    def _part(self, name: str, *command: str) -> Part:
        name = name if "-" in name else self._name(name)
        part = Part(name, self.folder, clean_environment() | self.settings, *command)
        self.parts.append(part)
        return part


async def _funded(broker: Broker) -> str:
    ledger = Ledger(broker, SECRET.encode())
    await ledger.create_account(DEMO)
    await ledger.deposit(DEMO, FUNDS, "first")
    return (await ledger.create_key(DEMO, Role.CLIENT, ""))[1]


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def in_parts(**settings: object) -> Iterator[Parts]:
    """A herd of which only Redis runs yet; all of it ended, by force if need be, on the way out."""
    with short_folder() as folder:
        parts = Parts(folder, **settings)
        try:
            yield parts.open()
        except BaseException:
            for part in parts.parts:
                print(f"--- {part.name}\n{part.told()[-4_000:]}")  # shown by pytest beside the failure
            raise
        finally:
            parts.close()
