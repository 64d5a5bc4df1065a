"""`python -m tests.e2e.mutated_ggufs --count 50`: start a worker on each of so many damaged model files.

Each must say in one line what is wrong and end with its code, or serve; none may hang, crash, or disturb the herd:
beside every one of them a sound worker answers a job, through the same herder.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from herder.broker import Broker
from llama_herder import Herder, HerderError
from tests.e2e.books import FUNDS, closed_books
from tests.e2e.gguf_mutations import Mutation, mutations
from tests.e2e.herd import clean_environment, until
from tests.e2e.parts import WORKER, Part, Parts, in_parts
from worker.main import EXIT_BAD_MODEL

HERD_TINY = Path(str(files("herder") / "models" / "herd-tiny.gguf"))
START_S = 120.0
ANSWER_S = 60.0
TOKENS = 8
REFUSED, SERVED = "refused", "served"
REFUSALS = range(400, 500)


@dataclass(frozen=True)
class Outcome:
    """What came of one damaged file; `fault` says what must not be."""

    name: str
    word: str
    said: str
    seconds: float
    fault: str = ""


class Field:
    """A herd with one sound worker, on which damaged files are tried."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._herder, parts.url = parts.herder()
        parts.worker("--model", "sound=herd-tiny", "--slots", "1")
        self._accepted: list[str] = []

    def attempt(self, mutation: Mutation) -> Outcome:
        """Start a worker on it, use it if it serves; a job of the sound worker is answered beside it."""
        began = time.monotonic()
        number = mutation.name.split()[0]
        path = self.parts.folder / f"m{number}.gguf"
        path.write_bytes(mutation.content)
        environment = clean_environment() | self.parts.settings
        flags = ("--id", f"w{number}", "--model", str(path), "--slots", "1")
        worker = Part(f"damaged-{number}", self.parts.folder, environment, *WORKER, *flags)
        self.parts.parts.append(worker)
        try:
            with self.parts.client() as client:
                self._answered(client, "sound")
                until(lambda: worker.process.poll() is not None or self._serves(f"w{number}"), "", START_S)
                word, fault = self._used(client, worker, f"m{number}")
        except AssertionError as error:
            word, fault = "hung", f"neither served nor ended {error}"
        finally:
            worker.end()
            path.unlink()
        said = worker.told().strip()
        return Outcome(mutation.name, word, said, time.monotonic() - began, fault)

    def _used(self, client: Herder, worker: Part, model: str) -> tuple[str, str]:
        """What a worker that has started or ended is worth: a word, and a fault."""
        code = worker.process.poll()
        if code is None:
            try:
                job = client.submit("What is a chatbot?", model=model, tokens=TOKENS)
            except (
                HerderError
            ) as error:  # a context too small for any answer, a template that cannot be rendered
                return SERVED, "" if error.status in REFUSALS else f"the herder said {error}"
            self._accepted.append(job.id)
            ended = until(lambda: worker.process.poll() is not None or client.job(job.id).ended, "", ANSWER_S)
            if not ended or worker.process.poll() is not None:
                client.cancel(job)
                return "crashed", f"exit code {worker.process.poll()} after it had begun to serve"
            worker.terminate()
            worker.ended()
            return SERVED, ""
        lines = worker.told().strip().splitlines()
        if code != EXIT_BAD_MODEL:
            return "crashed", f"exit code {code}"
        if len(lines) != 1 or not re.match(r"herder-worker: \S+\.gguf: ", lines[0]):
            return REFUSED, f"{len(lines)} lines instead of one that names the file"
        return REFUSED, ""

    def _serves(self, worker: str) -> bool:
        async def there(broker: Broker) -> bool:
            return any(state.worker == worker for state in await broker.worker_states())

        return self.parts.ask(there)

    def _answered(self, client: Herder, model: str) -> None:
        job = client.run("What is a chatbot?", model=model, tokens=TOKENS, timeout=ANSWER_S)
        self._accepted.append(job.id)

    def close(self) -> None:
        """The herder has lived through it, a sound worker still answers, and nothing was charged for a failure."""
        assert self._herder.process.poll() is None, self._herder.told()
        with self.parts.client() as client:
            self._answered(client, "sound")
        closed_books(self.parts, self._accepted, FUNDS)


@contextmanager
def field() -> Iterator[Field]:
    """A field that is ready, and in order at its end."""
    with in_parts(log_level="warning") as parts:
        ready = Field(parts)
        yield ready
        ready.close()


def main() -> int:
    """0 when every file was refused in one line or served; 1 when one was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.mutated_ggufs", description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="files")
    parser.add_argument("--seed", type=int, default=0, help="the same files for the same seed")
    parser.add_argument("--only", type=int, help="the file of this number alone")
    chosen = parser.parse_args()
    outcomes: list[Outcome] = []
    with field() as ready:
        for mutation in mutations(HERD_TINY.read_bytes(), chosen.count, chosen.seed):
            if chosen.only is None or int(mutation.name.split()[0]) == chosen.only:
                outcome = ready.attempt(mutation)
                outcomes.append(outcome)
                said = outcome.said.replace(str(ready.parts.folder), "…")[-160:]
                print(
                    f"{outcome.name:32} {outcome.word:8} {outcome.seconds:5.1f} s",
                    outcome.fault,
                    said,
                    flush=True,
                )
    words = Counter(outcome.word for outcome in outcomes)
    faults = [outcome.name for outcome in outcomes if outcome.fault]
    print(
        f"{len(outcomes)} files: {dict(words)}, longest {max(o.seconds for o in outcomes):.1f} s; at fault: {faults}"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
