"""Running jobs are cancelled at every moment of their answer; each time the slot is free soon, each refund is exact.

`python -m tests.e2e.cancels --count 100` is the acceptance run: every slot free within half a second. The suite runs
fewer and bounds them loosely, since its machine may be doing other things. The time runs from before DELETE is sent.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from herder.lifecycle import Status
from herder.pricing import Terms, capture
from herder.protocol import EventKind, JobRecord
from llama_herder import Herder
from tests.e2e.books import closed_books, event_log, streamed
from tests.e2e.herd import Up, herd, short_folder, until
from tests.e2e.slow_model import slow_model

SLOTS = 4
FREE_S = 0.5
LIMIT_S = 20.0
POLL_S = 0.005
ENDED_S = 60.0
FUNDS = 10_000_000
ROUNDS_MAX = 5  # how often a cancel may be done again because another job happened to end beside it
SHORT, LONG = "Tell me everything", "Once upon a time there was a llama. " * 40
ANSWER_TOKENS = 1_400
DECODING_S = (0.1, 0.6)
MOMENTS = ("at once", "in the prompt", "in the answer")


@dataclass(frozen=True)
class Cancel:
    """One cancel of a running job: when it came, by what its slot was seen to be free, and how long both took."""

    job: str
    moment: str
    seen_by: str
    free_s: float
    ended_s: float


class Cancels:
    """One run on a herd that is ready: four slots, always full when somebody is cancelled."""

    def __init__(self, up: Up, herder: Herder, http: httpx.Client, seed: int) -> None:
        self._up, self._herder, self._http = up, herder, http
        self._random = random.Random(seed)
        self._tick = threading.Event()
        self.accepted: list[str] = []
        self._running: deque[str] = deque()
        self._waiting: deque[str] = deque()

    def run(self, count: int) -> list[Cancel]:
        """So many cancels, then the others' too; the books are the caller's to close."""
        done: list[Cancel] = []
        for number in range(count):
            by_gauge = number % 2 == 0
            moment = MOMENTS[number // 2 % len(MOMENTS)]
            done.append(self._one(moment, by_gauge))
        for job in [*self._running, *self._waiting]:
            self._herder.cancel(job)
        for job in self.accepted:
            until(lambda job=job: self._herder.job(job).ended, f"{job} has ended")  # type: ignore[misc]
        return done

    def _one(self, moment: str, by_gauge: bool) -> Cancel:
        for _ in range(ROUNDS_MAX):
            victim = self._fill(moment, by_gauge)
            if victim and (cancel := self._cancelled(victim, moment, by_gauge)):
                return cancel
        raise AssertionError(f"{ROUNDS_MAX} times another job ended beside the one that was cancelled")

    def _submit(self, prompt: str) -> str:
        unique = f"{self._random.random()} {prompt}"  # nothing of it is in the cache
        # A fee of which the part that is due is no whole number.
        multiplier = round(self._random.uniform(1, 3), 2)
        job = self._herder.submit(unique, tokens=ANSWER_TOKENS, temperature=0.0, multiplier=multiplier).id
        self.accepted.append(job)
        return job

    def _status(self, job: str) -> str:
        return self._herder.job(job).status

    def _fill(self, moment: str, by_gauge: bool) -> str | None:
        """Every slot taken, the newest by the job to be cancelled, which is at `moment`; and nobody or one in line."""
        self._running = deque(
            job for job in [*self._running, *self._waiting] if self._status(job) == "running"
        )
        self._waiting.clear()
        while len(self._running) >= SLOTS:
            self._stop(self._running.popleft())
        while len(self._running) < SLOTS - 1:
            self._start(SHORT)
        self._until(lambda: self._busy() == SLOTS - 1 or self._beside(), "the others have their slots")
        victim = self._start(LONG if moment == "in the prompt" else SHORT)
        if moment == "in the answer":
            self._tick.wait(self._random.uniform(*DECODING_S))
        if not by_gauge:
            self._waiting.append(self._submit(SHORT))
        elif moment == "in the answer":
            self._until(lambda: self._busy() == SLOTS or self._beside(), "the gauge shows it")
        return None if self._beside() else victim

    def _beside(self) -> bool:
        """Whether a job has ended by itself: a random model ends an answer where it likes."""
        return any(self._status(job) != "running" for job in self._running)

    def _start(self, prompt: str) -> str:
        job = self._submit(prompt)
        self._until(lambda: self._status(job) != "queued", f"{job} has a slot")
        self._running.append(job)
        return job

    def _stop(self, job: str) -> None:
        self._herder.cancel(job)
        self._until(lambda: self._herder.job(job).ended, f"{job} has ended")

    def _cancelled(self, victim: str, moment: str, by_gauge: bool) -> Cancel | None:
        """Cancel it and look when its slot is free; None where that says nothing, as another job ended meanwhile."""
        began = time.monotonic()
        self._herder.cancel(victim)
        ended_s = 0.0
        while True:
            if not ended_s and self._herder.job(victim).ended:
                ended_s = time.monotonic() - began
            # A gauge that has not come to show the victim's slot yet would show it free: its end is asked for too.
            if ended_s and (self._busy() < SLOTS if by_gauge else self._status(self._waiting[0]) != "queued"):
                break
            assert time.monotonic() - began < LIMIT_S, f"{victim}: no free slot {LIMIT_S} s after its cancel"
            self._tick.wait(POLL_S)
        free_s = time.monotonic() - began
        self._running.remove(victim)
        if self._beside():
            return None
        return Cancel(victim, moment, "gauge" if by_gauge else "the next job", free_s, ended_s)

    def _busy(self) -> int:
        """`herder_slots_busy`, as Prometheus would see it now."""
        lines = self._http.get("/metrics").text.splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("herder_slots_busy{"))

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + ENDED_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {ENDED_S:.0f} s"
            self._tick.wait(POLL_S)


def check_refunds(up: Up, cancels: Sequence[Cancel], accepted: Sequence[str]) -> None:
    """Each cancelled job paid exactly for the tokens in its partial result; the ledger knows nothing else."""
    records = closed_books(up, accepted, FUNDS)
    faults: list[str] = []
    for cancel in cancels:
        record = records[cancel.job]
        faults += _faults(record, _terms(up, record))
        events = up.ask(lambda broker, job=cancel.job: event_log(broker, job))  # type: ignore[misc]
        told = sum(int(event.fields["count"]) for event in events if event.kind is EventKind.TOKENS)
        # Tokens without text of their own (half a character) are paid for, and told with the text that they lead to.
        if streamed(events) != record.text or told > (record.completion_tokens or 0):
            faults.append(
                f"{cancel.job}: {told} tokens were told, {record.completion_tokens} are in its result"
            )
    assert faults == []


def _terms(up: Up, record: JobRecord) -> Terms:
    fields = up.ask(lambda broker: broker.hash_of("job", record.job_id))
    return Terms(int(fields["set_prompt_fee"]), int(fields["fee_per_token"]), record.base, record.fee)


def _faults(record: JobRecord, terms: Terms) -> list[str]:
    due = capture(terms, record.completion_tokens or 0)
    wanted = (Status.CANCELLED, "cancelled", 1, due, record.fee - due)
    found = (record.status, record.finish_reason, record.attempt, record.captured, record.refunded)
    return [] if found == wanted else [f"{record.job_id}: {found} instead of {wanted}"]


def run(count: int, seed: int = 1) -> list[Cancel]:
    """A herd of its own. Raises AssertionError where a slot stays taken or a credit is missing."""
    with short_folder() as folder:
        options = ["--slots", str(SLOTS), "--model", slow_model(folder)]
        settings = {"demo_credits": FUNDS, "rate_limit_per_minute": 1_000_000}
        with herd(*options, folder=folder, **settings) as up:
            with up.client() as herder, httpx.Client(base_url=up.url, timeout=LIMIT_S) as http:
                running = Cancels(up, herder, http, seed)
                done = running.run(count)
            check_refunds(up, done, running.accepted)
            up.stop()
    return done


def told(cancels: Sequence[Cancel]) -> str:
    """The numbers of a run: until the job was cancelled, and until its slot was free."""
    lines = [
        f"{len(cancels)} cancels of running jobs, milliseconds after DELETE was sent (p50, p99, longest)"
    ]
    for name in ("all", *MOMENTS, "gauge", "the next job"):
        if some := [c for c in cancels if name in ("all", c.moment, c.seen_by)]:
            ended, free = sorted(c.ended_s for c in some), sorted(c.free_s for c in some)
            lines.append(f"  {name:>14} ({len(some):3d})  cancelled {_at(ended)}   free {_at(free)}")
    return "\n".join(lines)


def _at(seconds: Sequence[float]) -> str:
    p99 = seconds[min(len(seconds) - 1, round(0.99 * (len(seconds) - 1)))]
    return " ".join(f"{1000 * s:5.0f}" for s in (seconds[len(seconds) // 2], p99, seconds[-1]))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when every slot was free in time."""
    parser = argparse.ArgumentParser(prog="tests.e2e.cancels", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="running jobs to cancel")
    parser.add_argument("--seed", type=int, default=1, help="when")
    chosen = parser.parse_args(arguments)
    cancels = run(chosen.count, chosen.seed)
    print(told(cancels))
    late = [cancel for cancel in cancels if cancel.free_s > FREE_S]
    for cancel in late:
        print(f"late: {cancel}")
    print(
        f"{Counter(cancel.free_s <= FREE_S for cancel in cancels)[True]} of {len(cancels)} within {FREE_S} s"
    )
    return 1 if late else 0


if __name__ == "__main__":
    raise SystemExit(main())
