"""How long a newcomer waits while four accounts keep the herd busy with piles of prompts, at equal bids.

The whole herd answers, from HTTP to llama.cpp. Beside it llama-server, where whoever comes first is served first: what
a herd without the accounts' clocks would do.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks.callers import Answer, Ask, Asked, of_ring, words
from benchmarks.report import Report, percentile
from benchmarks.servers import Server, new_account, side_by_side

SLOTS = 4
CONTEXT = 256
HEAVY = 4
PILE = 50  # prompts of each heavy account, all at once
NEWCOMERS = 24
EACH = 8  # answers to the heavy ones between two newcomers
TOKENS = 24
ASKED_WORDS = 24
ALONE = 5


async def run(report: Report, rounds: int) -> None:
    """Labels: `p95_wait` (÷ (2 × solo wait + one job)), `p95_wait_unpaced` (llama-server's), both in seconds too."""
    warm_up = Asked(TOKENS, words(ASKED_WORDS, "warm up"))
    async with side_by_side(report, SLOTS, CONTEXT, warm_up, rounds) as in_turns:
        for number, server, name in in_turns:
            wait_s, allowed_s = await _round(server, number)
            report.add("p95_wait" if name == "ring" else "p95_wait_unpaced", wait_s / allowed_s)
            report.add(f"{name}_p95_wait_s", wait_s)
    report.note(
        f"{HEAVY} accounts with {PILE} prompts each, {NEWCOMERS} newcomers with one, {SLOTS} slots; {ASKED_WORDS} words"
        f" in, {TOKENS} tokens out; a wait ends with the first token"
    )


async def _round(server: Server, seed: object) -> tuple[float, float]:
    """(the newcomers' wait at the 95th percentile, twice what one waits alone and what a job takes in the crowd), in s.

    What it takes: slots × seconds ÷ jobs, since the slots are never empty.
    """
    solo_s = []
    for number in range(ALONE):
        alone = await server.ask(Asked(TOKENS, words(ASKED_WORDS, "alone", seed, number)))
        solo_s.append(alone.first_token_s)
    began = time.monotonic()
    newcomers = await _crowd(server, seed)
    job_s = SLOTS * (time.monotonic() - began) / (HEAVY * PILE + NEWCOMERS)
    waited_s = percentile([answer.first_token_s for answer in newcomers], 0.95)
    return waited_s, 2 * statistics.median(solo_s) + job_s


async def _crowd(server: Server, seed: object) -> list[Answer]:
    """Until all are answered; the answers to the newcomers, who come as the heavy accounts' prompts are answered."""
    heavy = [await _account(server) for _ in range(HEAVY)]
    fresh = [await _account(server) for _ in range(NEWCOMERS)]
    answered, more = 0, asyncio.Condition()

    async def piled(ask: Ask, *number: int) -> None:
        nonlocal answered
        await ask(Asked(TOKENS, words(ASKED_WORDS, "heavy", seed, *number)))
        async with more:
            answered += 1
            more.notify_all()

    async def newcomer(ask: Ask, number: int) -> Answer:
        async with more:
            await more.wait_for(lambda: answered >= EACH * (number + 1))
        return await ask(Asked(TOKENS, words(ASKED_WORDS, "newcomer", seed, number)))

    async with asyncio.TaskGroup() as group:
        for j in range(PILE):
            for i, ask in enumerate(heavy):
                group.create_task(piled(ask, i, j))
        newcomers = [group.create_task(newcomer(ask, number)) for number, ask in enumerate(fresh)]
    return [task.result() for task in newcomers]


async def _account(server: Server) -> Ask:
    """An account of its own, where there are accounts."""
    return of_ring(server.port, await new_account(server)) if server.admin_key else server.ask
