"""A herd under its real supervisor whose workers run the scripted engine, so that a prompt can ask for trouble.

Runs the supervisor in this process: what it starts are real processes, with the commands that it would use and the
engine's flags after them. Knows the herd by HTTP, by its Redis and by what it prints.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from herder.audit import audit
from herder.lifecycle import TERMINAL
from herder.protocol import JobRecord
from herder.settings import Settings
from herder.supervisor import Child
from herder.up import Herd
from llama_herder import AsyncHerder
from tests.e2e.herd import short_folder

MODEL = "scripted"
QUICK = {"lease_ms": 500, "watchdog_ms": 1_000, "model": (f"{MODEL}=scripted",), "log_level": "warning"}


class ScriptedHerd(Herd):
    """`herder up`, but for the engine of its workers."""

    def __init__(self, settings: Settings, step_ms: float) -> None:
        self.lines: list[tuple[str, str]] = []
        self._flags = ["--engine", "fake", "--fake-step-ms", str(step_ms)]
        super().__init__(settings, lambda name, line: self.lines.append((name, line)))

    def _worker(self, name: str, model: str, gpu: str) -> Child:
        child = super()._worker(name, model, gpu)
        command = child.command
        child.command = lambda: [*command(), *self._flags]
        return child

    def said(self, start: str) -> list[str]:
        """The lines of the workers that begin so."""
        return [line for name, line in self.lines if name.startswith("worker") and line.startswith(start)]

    def client(self) -> AsyncHerder:
        """A client with the demo account's key."""
        assert self.keys is not None
        return AsyncHerder(self.url, api_key=self.keys.demo_key)

    async def records(self, jobs: Sequence[str]) -> dict[str, JobRecord]:
        """These jobs, all ended, with the books in order."""
        assert self.broker is not None
        found = {job: await self.broker.job(job) for job in jobs}
        records = {job: record for job, record in found.items() if record is not None}
        assert [job for job in jobs if job not in records or records[job].status not in TERMINAL] == []
        assert not (await audit(self.broker)).problems
        return records


@asynccontextmanager
async def scripted_herd(step_ms: float = 0.0, **settings: object) -> AsyncIterator[ScriptedHerd]:
    """A herd that is ready, in a folder of its own; stopped on the way out."""
    with short_folder() as folder:
        chosen = QUICK | {"data_dir": folder / "d", "port": 0} | settings
        herd = ScriptedHerd(Settings(_env_file=None, **chosen), step_ms)  # type: ignore[call-arg, arg-type]
        await herd.start()
        try:
            yield herd
        except BaseException:
            print("\n".join(f"{name} | {line}" for name, line in herd.lines[-400:]))  # beside the failure
            raise
        finally:
            await herd.stop()
