"""`python -m tests.e2e.hostile`: hundreds of hostile requests to a whole herd, while others go on working.

Nothing may go down: no 5xx, the same API process at the end, at most one worker anew. The neighbours, of another
account, are all answered and answered right; what failed or was refused has cost nothing; what only looks
hostile is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from herder.broker import Broker
from herder.lifecycle import TERMINAL
from llama_herder import AsyncHerder
from tests.e2e import attack_bodies, attack_doors, attack_mixes, attack_prompts, attack_schemas
from tests.e2e.arena import Arena
from tests.e2e.attack_moves import CUT, MOVES, NOBODY
from tests.e2e.attacks import JOBS, Attack
from tests.e2e.books import PAGE, closed_books
from tests.e2e.herd import DEMO, Up, herd, until

WORKERS = 2
FUNDS = 100_000
NEIGHBOUR = "neighbour"
NEIGHBOURS = 2
NEIGHBOUR_FUNDS = 10_000_000
NEIGHBOUR_S = 120.0
AT_ONCE = 8
RESTARTS_MAX = 1
QUOTE = "/v1/quote"
LEAST = 100
QUESTIONS = ("What is a chatbot?", "What is a llama?", "What is a computer?", "Who are you?")
SETTINGS: dict[str, Any] = {
    "stop_strings_max": attack_prompts.STOPS_MAX, "rate_limit_per_minute": 10**6, "auth_failures_per_minute": 10**6,
    "webhook_allow": NOBODY, "demo_credits": FUNDS, "workers": WORKERS,
}  # fmt: skip


@dataclass
class Summary:
    """What a run came to."""

    sent: int = 0
    controls: int = 0
    became: dict[str, int] = field(default_factory=dict)
    overloads: int = 0
    neighbours: int = 0
    neighbours_differ: int = 0
    slowest_neighbour_s: float = 0.0
    worker_restarts: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def attacks(seed: int = 0) -> list[Attack]:
    """Every single request; the seed is that of the mixes."""
    parts = (attack_schemas, attack_bodies, attack_prompts, attack_doors)
    jobs = [attack for part in parts for attack in part.attacks()]
    return [*attack_mixes.attacks(seed), *jobs, *(_quoted(attack) for attack in jobs if _quotable(attack))]


def _quotable(attack: Attack) -> bool:
    keyed = "Idempotency-Key" in attack.headers
    return attack.method == "POST" and attack.path == JOBS and not attack.control and not keyed


def _quoted(attack: Attack) -> Attack:
    """Its quote, which holds nothing and looks at less: it is answered, or refused as the job is."""
    becomes = attack.becomes | {"200"}
    return replace(attack, name=f"quote: {attack.name}", path=QUOTE, becomes=becomes, check=None)


class Neighbours:
    """Ordinary callers of another account, who ask what they have asked before and wait for each answer."""

    def __init__(self, url: str, key: str, summary: Summary) -> None:
        self._url, self._key = url, key
        self._summary = summary
        self._known: dict[str, str] = {}
        self.spent = 0

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """They ask all the time. Whatever goes wrong for one of them is raised at the end."""
        over = asyncio.Event()
        async with AsyncHerder(self._url, api_key=self._key) as herder:
            for question in QUESTIONS:
                self._known[question] = await self._asked(herder, question)
            tasks = [asyncio.create_task(self._go_on(herder, number, over)) for number in range(NEIGHBOURS)]
            try:
                yield
            finally:
                over.set()
                await asyncio.gather(*tasks)

    async def _go_on(self, herder: AsyncHerder, number: int, over: asyncio.Event) -> None:
        turn = number
        while not over.is_set():
            question = QUESTIONS[turn % len(QUESTIONS)]
            began = time.monotonic()
            if turn % 3 == 2:
                await self._typed(herder, question)
            else:
                # In company the last bits of the logits may differ, and so, seldom, may a greedy answer.
                self._summary.neighbours_differ += (
                    await self._asked(herder, question) != self._known[question]
                )
            self._summary.slowest_neighbour_s = max(
                self._summary.slowest_neighbour_s, time.monotonic() - began
            )
            self._summary.neighbours += 1
            turn += 1

    async def _asked(self, herder: AsyncHerder, question: str) -> str:
        job = await herder.run(question, 24, timeout=NEIGHBOUR_S)
        self.spent += job.captured or 0
        assert job.result is not None, job.raw
        assert job.result.text, job.raw
        return job.result.text

    async def _typed(self, herder: AsyncHerder, question: str) -> None:
        job = await herder.run(question, 40, output_type={"ok": "bool", "count": "int"}, timeout=NEIGHBOUR_S)
        self.spent += job.captured or 0
        assert [type(job.output[name]) for name in ("ok", "count")] == [bool, int], job.raw


async def attacked(arena: Arena, chosen: Sequence[Attack], moves: bool) -> None:
    """All of these, some at a time; then the longer ones, one after the other."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(attack: Attack) -> None:
        async with turns:
            await arena.send(attack)

    await asyncio.gather(*map(one, chosen))
    for move in MOVES if moves else ():
        try:
            await move(arena)
        except Exception as error:  # the next one may find more
            arena.faults.append(f"{move.__name__}: {type(error).__name__} {str(error)[:600]}")


async def _run(
    up: Up, keys: tuple[str, str], summary: Summary, chosen: Sequence[Attack], moves: bool
) -> tuple[Arena, int]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=up.url, timeout=60.0, limits=limits, trust_env=False) as http:
        arena = Arena(http, *keys)
        await arena.ready()
        neighbours = Neighbours(up.url, keys[1], summary)
        async with neighbours.busy():
            await attacked(arena, chosen, moves)
    return arena, neighbours.spent


async def _all_ended(broker: Broker) -> bool:
    records, cursor = await broker.jobs(DEMO, before=None, limit=PAGE)
    while cursor:
        more, cursor = await broker.jobs(DEMO, before=cursor, limit=PAGE)
        records += more
    return all(record.status in TERMINAL for record in records)


def judged(up: Up, arena: Arena, spent: int, summary: Summary) -> None:
    """The processes, the books, and the neighbours' money; what is wrong is in the faults."""
    until(lambda: up.ask(_all_ended), "every job has ended")
    records = closed_books(up, arena.accepted, FUNDS)
    known = arena.accepted | set(arena.items)
    strays = [each for each, record in records.items() if each not in known and record.metadata != CUT]
    arena.expect(not strays, f"refused, and yet there: {strays[:5]}")
    with up.client("admin") as admin:
        account = admin.admin.account(NEIGHBOUR)
    differ = summary.neighbours_differ
    arena.expect(
        differ * 100 <= summary.neighbours, f"{differ} of {summary.neighbours} neighbours' answers differ"
    )
    exact = (account.available, account.held) == (NEIGHBOUR_FUNDS - spent, 0)
    arena.expect(exact, f"the neighbour has {account}, and has spent {spent} of {NEIGHBOUR_FUNDS}")
    started = [name for name, _ in up.processes()]
    summary.worker_restarts = sum(name.startswith("worker") for name in started) - WORKERS
    arena.expect(summary.worker_restarts <= RESTARTS_MAX, f"{summary.worker_restarts} workers anew")
    others = [name for name in started if not name.startswith("worker")]
    arena.expect(len(others) == len(set(others)), f"started again: {others}")
    summary.sent, summary.controls, summary.overloads = arena.sent, arena.controls, arena.overloads
    summary.became, summary.faults = dict(arena.became.most_common()), arena.faults


def run(chosen: Sequence[Attack], moves: bool = True) -> Summary:
    """A herd of its own, attacked. Raises AssertionError where its books do not close or a neighbour is let down."""
    summary = Summary()
    with herd(**SETTINGS) as up:
        with up.client("admin") as admin:
            admin.admin.create(NEIGHBOUR, NEIGHBOUR_FUNDS)
            stranger = admin.admin.create_key(NEIGHBOUR).key
        began = time.monotonic()
        arena, spent = asyncio.run(_run(up, (up.keys[DEMO], stranger), summary, chosen, moves))
        summary.seconds = time.monotonic() - began
        judged(up, arena, spent, summary)
        up.stop()
    return summary


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where nothing is at fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.hostile", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the order of the requests, and what is mixed")
    parser.add_argument("--only", default="", help="only attacks whose name contains this, and no moves")
    plan = parser.parse_args(arguments)
    chosen = [attack for attack in attacks(plan.seed) if plan.only in attack.name]
    random.Random(plan.seed).shuffle(chosen)
    summary = run(chosen, moves=not plan.only)
    for name, value in vars(summary).items():
        if name != "faults":
            print(f"{name:>20}  {value}")
    for fault in summary.faults:
        print("fault:", fault)
    return 1 if summary.faults else 0


if __name__ == "__main__":
    sys.exit(main())
