"""Chats on several workers: a turn goes where its past is held, and most of what can be reused is."""

from __future__ import annotations

import random

import pytest

from herder.clock import SimulatedClock
from herder.protocol import Lease
from herder.settings import Settings
from tests.integration.leasing import OPENING, WORKERS, Bench, opened


class Chats:
    """8 users with 8 turns each, on 4 workers that keep the last 8 prompts each; whoever is rung first is chance."""

    STEP_MS = 50
    KEPT = 8

    def __init__(self, bench: Bench, clock: SimulatedClock, seed: int) -> None:
        self._bench, self._clock, self._rng = bench, clock, random.Random(seed)
        self._texts = [OPENING + f"I am user {user}. " for user in range(8)]
        self._turns = [0] * 8
        self._next = {user: self._rng.randrange(4_000) for user in range(8)}  # when each speaks again
        self._kept: dict[str, list[str]] = {worker: [] for worker in WORKERS}
        self._busy: list[tuple[int, str, int, Lease]] = []  # until when, who, with which user's prompt
        self.reusable = self.found = 0

    async def run(self, accounts: list[str]) -> float:
        """The share of the characters of each chat's past that the worker of its next turn still had."""
        jobs: dict[str, int] = {}
        now = 0
        while jobs or self._next:
            for user in [user for user, at in self._next.items() if at <= now]:
                jobs[await self._bench.prompt(accounts[user], self._texts[user], tokens=1)] = user
                del self._next[user]
            for end in [end for end in self._busy if end[0] <= now]:
                await self._answered(now, *end[1:])
                del jobs[end[3].job_id]
                self._busy.remove(end)
            for worker in self._rng.sample(WORKERS, len(WORKERS)):
                await self._ask(now, worker, jobs)
            now += self.STEP_MS
            self._clock.advance(self.STEP_MS)
        assert self._turns == [8] * 8
        return self.found / self.reusable

    async def _ask(self, now: int, worker: str, jobs: dict[str, int]) -> None:
        """A worker with free slots takes what it is given."""
        free = 4 - sum(busy[1] == worker for busy in self._busy)
        for lease in (await self._bench.take(worker, slots=free)).leases:
            user = jobs[lease.job_id]
            text = self._texts[user]
            past = text.rpartition("|")[0]
            self.reusable += len(past)
            self.found += max((common_chars(kept, past) for kept in self._kept[worker]), default=0)
            self._kept[worker] = [*self._kept[worker], text][-self.KEPT :]
            self._busy.append((now + self._rng.randrange(300, 2_000), worker, user, lease))

    async def _answered(self, now: int, worker: str, user: int, lease: Lease) -> None:
        """The answer joins the chat; the user reads it, and has something to say."""
        await self._bench.settle(lease, 1, worker=worker)
        self._turns[user] += 1
        said = "".join(self._rng.choices("abcdefgh ", k=self._rng.randrange(200, 900)))
        self._texts[user] += "|" + said
        if self._turns[user] < 8:
            self._next[user] = now + self._rng.randrange(3_000)


def common_chars(left: str, right: str) -> int:
    least = min(len(left), len(right))
    return next((i for i in range(least) if left[i] != right[i]), least)


@pytest.mark.parametrize("accounts", ["one", "several"])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_chats_go_on_where_their_past_is_held(
    settings: Settings, clock: SimulatedClock, seed: int, accounts: str
) -> None:
    """At least nine tenths of what can be reused is; of one account, all with one opening, or of four accounts."""
    names = ["ann"] * 8 if accounts == "one" else ["ann", "bob", "cay", "dan"] * 2
    bench = await opened(settings, clock)
    assert await Chats(bench, clock, seed).run(names) >= 0.9
    await bench.broker.close()


async def test_chats_wander_where_nobody_looks_at_what_is_held(
    settings: Settings, clock: SimulatedClock
) -> None:
    """The control: with the window shut, what is reused is the opening, and luck."""
    bench = await opened(settings, clock, prefix_window_ms=0)
    assert await Chats(bench, clock, 1).run(["ann"] * 8) < 0.8
    await bench.broker.close()
