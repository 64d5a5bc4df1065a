"""Whether a bid buys a place: a line of equal bids, then one of 1.5 that comes last, and who starts before it.

The whole herd answers, from HTTP to llama.cpp. Beside it llama-server, which knows no bids: there the last to come is
the last to start.
"""

from __future__ import annotations

import asyncio
from itertools import combinations
from typing import Any

import httpx

from benchmarks.callers import Answer, Ask, Asked, of_ring, words
from benchmarks.report import Report
from benchmarks.servers import Server, new_account, side_by_side

SLOTS = 2
CONTEXT = 256
ACCOUNTS = 5
JOBS = 16  # of each account, all at once
TOKENS = 16
ASKED_WORDS = 24
ANSWERED = 4  # before the high bid comes
HIGH = 1.5
PAGE = 100


async def run(report: Report, rounds: int) -> None:
    """Labels: `starts_before_high_bid`, `fifo_violations` (within an account and bid), `llama_server_starts_before`."""
    warm_up = Asked(TOKENS, words(ASKED_WORDS, "warm up"))
    async with side_by_side(report, SLOTS, CONTEXT, warm_up, rounds) as in_turns:
        for number, server, name in in_turns:
            if name == "ring":
                starts, violations = await _of_ring(server, number)
                report.add("starts_before_high_bid", starts)
                report.add("fifo_violations", violations)
            else:
                answers, late = await _round([server.ask] * ACCOUNTS, server.ask, number)
                firsts = [answer.arrivals[0][0] for answer in answers]
                before = sum(late.began < first < late.arrivals[0][0] for first in firsts)
                report.add("llama_server_starts_before", before)
    report.note(
        f"{ACCOUNTS} accounts with {JOBS} prompts each at 1.0, {SLOTS} slots; one at {HIGH} after {ANSWERED} answers;"
        f" {ASKED_WORDS} words in, {TOKENS} tokens out; fifo_violations: pairs of an account that started the wrong way"
    )


async def _of_ring(server: Server, seed: object) -> tuple[int, int]:
    """By what the herder's records say: a job that is taken from the line has started."""
    keys = await asyncio.gather(*(new_account(server) for _ in range(ACCOUNTS)))
    bidder = await new_account(server)
    await _round([of_ring(server.port, key) for key in keys], of_ring(server.port, bidder), seed)
    (high,) = await _jobs(server, bidder)
    lines = [await _jobs(server, key) for key in keys]
    before = sum(
        high["submitted_ms"] < job["started_ms"] < high["started_ms"] for jobs in lines for job in jobs
    )
    return before, sum(map(_violations, lines))


def _violations(jobs: list[dict[str, Any]]) -> int:
    """Pairs of which the later started sooner."""
    return sum(
        (one["submitted_ms"] - other["submitted_ms"]) * (one["started_ms"] - other["started_ms"]) < 0
        for one, other in combinations(jobs, 2)
    )


async def _round(asks: list[Ask], bidder: Ask, seed: object) -> tuple[list[Answer], Answer]:
    """The answers to all who came first, and to the one who came later and bid more."""
    answered, some = 0, asyncio.Event()

    async def one(ask: Ask, *number: int) -> Answer:
        nonlocal answered
        answer = await ask(Asked(TOKENS, words(ASKED_WORDS, "bids", seed, *number)))
        answered += 1
        if answered >= ANSWERED:
            some.set()
        return answer

    async with asyncio.TaskGroup() as group:
        crowd = [group.create_task(one(ask, i, j)) for j in range(JOBS) for i, ask in enumerate(asks)]
        await some.wait()
        late = await bidder(Asked(TOKENS, words(ASKED_WORDS, "high bid", seed), multiplier=HIGH))
    return [task.result() for task in crowd], late


async def _jobs(server: Server, key: str) -> list[dict[str, Any]]:
    """All of an account, which has no more than a page."""
    base_url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=base_url, headers={"X-API-Key": key}, trust_env=False) as client:
        page = (await client.get("/v1/jobs", params={"limit": PAGE})).raise_for_status().json()
    assert len(page["jobs"]) < PAGE
    return list(page["jobs"])
