"""Workers are killed at random while clients go on submitting; then every accepted job has succeeded, to the credit.

`python -m tests.e2e.chaos --seconds 60` is the long run and prints its numbers; the suite runs a short one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from herder.lifecycle import Status
from llama_herder import Herder, WaitTimeout
from tests.e2e.books import closed_books
from tests.e2e.herd import Up, alive, herd, short_folder
from tests.e2e.slow_model import slow_model, tokens_for

WORKERS = 2
SLOTS = 4
CLIENTS = 8
KILL_EVERY_S = 2.0
JOB_S = (1.0, 3.0)
PATIENCE_S = 4.0  # a client that has waited so long for an answer submits the next prompt meanwhile
PEACE_S = 900.0  # for everything to be answered once nobody is killed any more
FUNDS = 10_000_000


@dataclass(frozen=True)
class Numbers:
    """What a run came to."""

    jobs: int
    succeeded: int
    kills: int
    reruns: int
    most_attempts: int
    tokens: int
    seconds: float


class Chaos:
    """One run on a herd that is ready."""

    def __init__(self, running: Up, herder: Herder, seconds: float, seed: int) -> None:
        self._herd = running
        self._herder = herder
        self._random = random.Random(seed)
        self._seconds = seconds
        self._over = threading.Event()
        self._tokens = [tokens_for(herder, took, WORKERS * SLOTS) for took in JOB_S]
        self.accepted: list[str] = []
        self.killed: list[int] = []

    def run(self) -> Numbers:
        """Clients and killer for the time that was asked for, then peace, then the books."""
        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            parts = [pool.submit(self._client, number) for number in range(CLIENTS)]
            parts.append(pool.submit(self._killer))
            self._over.wait(self._seconds)
            self._over.set()
            for part in parts:
                part.result()
            list(pool.map(lambda job: self._herder.wait(job, PEACE_S), self.accepted))
        closed = closed_books(self._herd, self.accepted, FUNDS)
        records = [closed[job] for job in self.accepted]
        for record in records:
            if record.status is not Status.SUCCEEDED:
                print(
                    f"{record.job_id} {record.status}: {record.error_message}; {self._counted(record.job_id)}"
                )
        return Numbers(
            jobs=len(records),
            succeeded=sum(record.status is Status.SUCCEEDED for record in records),
            kills=len(self.killed),
            reruns=sum(record.attempt - 1 for record in records),
            most_attempts=max(record.attempt for record in records),
            tokens=sum(record.completion_tokens or 0 for record in records),
            seconds=round(time.monotonic() - began, 1),
        )

    def _counted(self, job_id: str) -> dict[str, str]:
        """What the broker has counted against a job."""
        fields = self._herd.ask(lambda broker: broker.hash_of("job", job_id))
        return {
            name: count for name, count in fields.items() if name.startswith(("lapses", "kills", "attempt"))
        }

    def _client(self, number: int) -> None:
        dice = random.Random(number)
        while not self._over.is_set():
            job = self._herder.submit(
                f"Client {number} asks for a number: {dice.random()}",
                tokens=dice.randint(*self._tokens),
                temperature=0.9,
            )
            self.accepted.append(job.id)
            with contextlib.suppress(WaitTimeout):
                self._herder.wait(job, PATIENCE_S)

    def _killer(self) -> None:
        while not self._over.wait(KILL_EVERY_S):
            workers = [f"worker-{i + 1}" for i in range(WORKERS)]
            living = [pid for name in workers if alive(pid := self._herd.pid_of(name))]
            if living:
                os.kill(pid := self._random.choice(living), signal.SIGKILL)
                self.killed.append(pid)


def run(seconds: float, seed: int = 1) -> Numbers:
    """A herd of its own, broken for so long. Raises AssertionError where its books do not close."""
    with short_folder() as folder:
        options = ["--workers", str(WORKERS), "--slots", str(SLOTS), "--model", slow_model(folder)]
        with herd(*options, folder=folder, demo_credits=FUNDS) as running:
            with running.client() as herder:
                numbers = Chaos(running, herder, seconds, seed).run()
            running.stop()
    return numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when every accepted job has succeeded."""
    parser = argparse.ArgumentParser(prog="tests.e2e.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long workers are killed")
    parser.add_argument("--seed", type=int, default=1, help="whom to kill")
    chosen = parser.parse_args(arguments)
    numbers = run(chosen.seconds, chosen.seed)
    for name, value in asdict(numbers).items():
        print(f"{name:>14}  {value}")
    return 0 if numbers.succeeded == numbers.jobs else 1


if __name__ == "__main__":
    raise SystemExit(main())
