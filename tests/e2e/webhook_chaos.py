"""The courier, the API and Redis are killed at random while jobs end; then each job's webhook has arrived, signed.

The receiver answers 500, answers too late, redirects, breaks off and hangs by turns before it answers well.
`python -m tests.e2e.webhook_chaos --seconds 120 --jobs 500` is the long run and prints its numbers; the suite runs a
short one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count

import httpx

from tests.e2e.books import closed_books
from tests.e2e.herd import Up, alive, herd
from tests.e2e.receiver import HANG, Hit, Receiver, Reply, receiving

PARTS = ("courier", "api", "redis")
KILL_EVERY_S = (2.0, 6.0)
CLIENTS = 4
TOKENS = 12
TIMEOUT_MS = 400
RETRY_S = 0.3
TRIES = 60
PEACE_S = 240.0  # for everything to arrive once nobody is killed any more
FUNDS = 10_000_000
LATE = Reply(200)  # when nobody listens any more
LATE_S = 2 * TIMEOUT_MS / 1000
BAD = (Reply(500), Reply(302, {"location": "/elsewhere"}), Reply(503, {"retry-after": "1"}), HANG, LATE)


@dataclass(frozen=True)
class Numbers:
    """What a run came to."""

    jobs: int
    delivered: int
    requests: int
    most_requests: int
    forged: int
    ids_of_a_job: int
    kills: dict[str, int]
    seconds: float


class Turns:
    """What the receiver answers: to each webhook every kind of trouble in turn, from a place of its own."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._places = count()
        self._place: dict[str, int] = {}
        self.accepted: set[str] = set()
        self.secrets: dict[str, str] = {}
        self.forged: list[str] = []
        self.ids: dict[str, set[str]] = {}

    def __call__(self, hit: Hit) -> Reply:
        """Check the signature as it comes, since it is good for some minutes only; then the next kind of answer."""
        path = hit.path.partition("?")[0]
        try:
            subject = hit.verified(self.secrets[path])["data"]["id"]
        except Exception as error:
            self.forged.append(f"{hit.path}: {error!r}")
            return Reply(400)
        with self._lock:
            place = self._place.setdefault(hit.id, next(self._places))
            turn, self._seen[hit.id] = self._seen[hit.id], self._seen[hit.id] + 1
            self.ids.setdefault(subject, set()).add(hit.id)
        # How much trouble each has is spread as well: from none to all of it.
        if turn < place % (len(BAD) + 1):
            reply = BAD[(place + turn) % len(BAD)]
            if reply is LATE:
                self._receiver.closing.wait(LATE_S)
            return reply
        with self._lock:
            self.accepted.add(hit.id)
        return Reply(204)


class Chaos:
    """One run on a herd that is ready."""

    def __init__(self, up: Up, receiver: Receiver, *, seconds: float, jobs: int, seed: int) -> None:
        self._up, self._receiver = up, receiver
        self._seconds, self._jobs = seconds, jobs
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._numbers = iter(range(jobs))
        self._lock = threading.Lock()
        self.turns = Turns(receiver)
        receiver.answering = self.turns
        self.jobs: list[str] = []
        self.kills: Counter[str] = Counter()

    def run(self) -> Numbers:
        """Endpoints, then clients and killer, then peace, then the books."""
        began = time.monotonic()
        with self._client() as client:
            for path in ("/own", "/default"):
                made = self._until_answered(
                    client, "POST", "/v1/webhooks/endpoints", {"url": self._receiver.url + path}
                )
                self.turns.secrets[path] = made["secret"]
            self._until_answered(
                client, "PUT", "/v1/webhooks/default", {"url": f"{self._receiver.url}/default"}
            )
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            submitting = [pool.submit(self._submit) for _ in range(CLIENTS)]
            killing = pool.submit(self._kill)
            self._over.wait(self._seconds)
            self._over.set()
            killing.result()
            for part in submitting:
                part.result()
        wanted = {job.replace("job_", "msg_") for job in self.jobs}
        self._receiver.until_true(lambda: wanted <= self.turns.accepted, "all webhooks", PEACE_S)
        closed_books(self._up, self.jobs, FUNDS)
        requests = Counter(self._receiver.ids())
        return Numbers(
            jobs=len(self.jobs),
            delivered=len(wanted & self.turns.accepted),
            requests=sum(requests.values()),
            most_requests=max(requests.values()),
            forged=len(self.turns.forged),
            ids_of_a_job=max(map(len, self.turns.ids.values())),
            kills=dict(self.kills),
            seconds=round(time.monotonic() - began, 1),
        )

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self._up.url, headers={"Authorization": f"Bearer {self._up.keys['demo']}"}, timeout=10
        )

    def _submit(self) -> None:
        """The next jobs, at a pace that they last for the run; each sent again until it is known to be taken."""
        with self._client() as client:
            while True:
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    return
                body: dict[str, object] = {"prompt": f"Ask me about number {number}.", "tokens": TOKENS}
                if number % 2:
                    body["webhook_url"] = f"{self._receiver.url}/own?number={number}"
                job = self._until_answered(client, "POST", "/v1/jobs", body, key=f"chaos-{number}")
                with self._lock:
                    self.jobs.append(job["id"])
                self._over.wait(self._seconds * CLIENTS / self._jobs * 0.8)

    def _until_answered(
        self, client: httpx.Client, method: str, path: str, body: dict[str, object], key: str = ""
    ) -> dict[str, str]:
        headers = {"Idempotency-Key": key} if key else {}
        deadline = time.monotonic() + PEACE_S
        while True:
            try:
                reply = client.request(method, path, json=body, headers=headers)
                if reply.is_success:
                    answer: dict[str, str] = reply.json()
                    return answer
                assert reply.status_code >= 500, reply.text
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"{method} {path}: no answer"
            threading.Event().wait(0.2)

    def _kill(self) -> None:
        while not self._over.wait(self._random.uniform(*KILL_EVERY_S)):
            name = self._random.choice(PARTS)
            pid = self._up.pid_of(name)
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
                self.kills[name] += 1


def run(seconds: float, jobs: int, seed: int = 1) -> Numbers:
    """A herd of its own, broken for so long. Raises AssertionError where a webhook does not come."""
    schedule = ",".join(["0", *[str(RETRY_S)] * (TRIES - 1)])
    with receiving() as receiver:
        with herd(
            "--slots", "8", demo_credits=FUNDS, webhook_allow="127.0.0.0/8", webhook_ports="*",
            webhook_timeout_ms=TIMEOUT_MS, webhook_schedule_s=schedule, webhook_host_concurrency=32,
        ) as up:  # fmt: skip
            chaos = Chaos(up, receiver, seconds=seconds, jobs=jobs, seed=seed)
            numbers = chaos.run()
            up.stop()
        assert chaos.turns.forged == []
    return numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when every job's webhook arrived, signed, under one id."""
    parser = argparse.ArgumentParser(prog="tests.e2e.webhook_chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long parts are killed")
    parser.add_argument("--jobs", type=int, default=500, help="how many jobs end meanwhile")
    parser.add_argument("--seed", type=int, default=1, help="what to kill, and when")
    chosen = parser.parse_args(arguments)
    numbers = run(chosen.seconds, chosen.jobs, chosen.seed)
    for name, value in asdict(numbers).items():
        print(f"{name:>14}  {value}")
    return 0 if numbers.delivered == numbers.jobs and numbers.ids_of_a_job == 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
