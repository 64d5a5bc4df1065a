"""Prompts that begin alike: 64 requests of 16 clients with one system prompt beside llama-server, and chats that go on.

Each round has a system prompt that neither side has seen, so that both begin cold; llama-server's prompt cache is on.
The chats run on four workers: a turn is quick only where it finds the worker that has the turns before.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

from benchmarks.callers import Answer, Asked, closed_loops, of_ring, tokens_per_s, words
from benchmarks.report import Report
from benchmarks.servers import KV_UNIFIED, Server, best, in_turns, llama_server, new_account, ring
from herder.settings import cores

CLIENTS = 16
REQUESTS = 64
SYSTEM_WORDS = 400
OWN_WORDS = 24
TOKENS = 32
CONTEXT = 1024
USERS = 8
TURNS = 8
WORKERS = 4
TURN_WORDS = 20
CHAT_TOKENS = 24
CHAT_SLOTS = 4
CHAT_CONTEXT = 2048
GRID: tuple[tuple[str, ...], ...] = (
    ("--cache-prompt",),
    ("--cache-prompt", "--kv-unified"),
    ("--cache-prompt", "--cache-ram", "0"),
    ("--cache-prompt", "--cache-ram", "0", "--ctx-checkpoints", "0"),
    ("--cache-prompt", "--kv-unified", "--cache-ram", "0"),
    ("--cache-prompt", "--slot-prompt-similarity", "0.5", "--cache-ram", "0"),
)


async def run(report: Report, rounds: int) -> None:
    """Labels: `llama_server` (tokens a second, ours ÷ its), `chat_reuse` (share of the reusable tokens reused)."""
    options = await best(report, CLIENTS, CONTEXT, GRID, _trial)
    # Its own best setting for this, as the peer's are the best of a grid.
    unified = "on" if KV_UNIFIED == "auto" else KV_UNIFIED
    with (
        ring(CLIENTS, CONTEXT, kv_unified=unified) as ours,
        llama_server(CLIENTS, CONTEXT, options) as theirs,
    ):
        for server in (ours, theirs):
            await _round(server, "warm up", requests=1)
            report.note(server.command)
        for number in range(rounds):
            found: dict[str, tuple[float, float]] = {}
            for server, name in in_turns(number, ours, theirs):
                found[name] = await _round(server, number)
                report.add(f"{name}_tokens_per_s", found[name][0])
                report.add(f"{name}_cached_share", found[name][1])
            report.add("llama_server", found["ring"][0] / found["llama_server"][0])
    report.note(f"{REQUESTS} requests: {SYSTEM_WORDS} + {OWN_WORDS} words in, {TOKENS} tokens out, all cold")
    await _chats(report, rounds)


async def _trial(server: Server) -> float:
    return (await _round(server, "grid"))[0]


async def _round(server: Server, seed: object, *, requests: int = 0) -> tuple[float, float]:
    """(tokens a second, share of the prompts' tokens that came out of a cache)."""
    system = words(SYSTEM_WORDS, "system", seed)
    queues = [
        [
            Asked(TOKENS, f"{system}\n{words(OWN_WORDS, 'own', seed, client, number)}")
            for number in range(requests or REQUESTS // CLIENTS)
        ]
        for client in range(CLIENTS)
    ]
    answers, seconds = await closed_loops(server.ask, queues)
    assert all(answer.completion_tokens == TOKENS for answer in answers), "an answer ended too soon"
    cached = sum(answer.cached_tokens for answer in answers)
    return tokens_per_s(answers, seconds), cached / sum(answer.prompt_tokens for answer in answers)


async def _chats(report: Report, rounds: int) -> None:
    """Every user has an account, so that nobody begins where another's chat is."""
    threads = max(1, cores() // WORKERS)
    with ring(CHAT_SLOTS, CHAT_CONTEXT, "--workers", str(WORKERS), threads=threads) as server:
        for number in range(rounds):
            keys = await asyncio.gather(*(new_account(server) for _ in range(USERS)))
            chats = await asyncio.gather(
                *(_chat(server.port, key, (number, user)) for user, key in enumerate(keys))
            )
            reusable = reused = 0
            for turns in chats:
                for before, turn in pairwise(turns):
                    # The last token of an answer is sampled, and not in the cache.
                    reusable += before.prompt_tokens + before.completion_tokens - 1
                    reused += turn.cached_tokens
            report.add("chat_reuse", reused / reusable)
            report.add("chat_reusable_tokens", reusable)
        report.note(f"{USERS} users, {TURNS} turns, {WORKERS} workers: {server.command}")


async def _chat(port: int, key: str, seed: object) -> list[Answer]:
    """The turns of one user, each with all that was said before."""
    ask = of_ring(port, key)
    said: tuple[dict[str, str], ...] = ()
    turns: list[Answer] = []
    for number in range(TURNS):
        said += ({"role": "user", "content": words(TURN_WORDS, "chat", seed, number)},)
        turns.append(await ask(Asked(CHAT_TOKENS, messages=said)))
        said += ({"role": "assistant", "content": turns[-1].text},)
    return turns
