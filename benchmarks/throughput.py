"""Tokens a second through the whole ring (HTTP → herder → Redis → worker) beside llama-server, and what the ring costs.

One model, the same prompts, answers of the same length; as many slots as clients, each of whom asks for one answer
after the other and reads it as a stream. No two prompts begin alike: what a cache may save is `shared_prefix`'s.
"""

from __future__ import annotations

from itertools import chain

from benchmarks.callers import Asked, closed_loops, tokens_per_s, words
from benchmarks.loops import loop_tokens_per_s
from benchmarks.report import Report
from benchmarks.servers import CLIENTS, MODEL, THREADS, Server, best, in_turns, llama_server, ring

PROMPT_WORDS = 64
TOKENS = 96
CONTEXT = 512
REQUESTS = {1: 4, 4: 3}  # of each client; more clients have 2
ALONE = 16  # slots of the comparisons with the engine alone
GRID: tuple[tuple[str, ...], ...] = (
    (),
    ("--kv-unified",),
    ("--cache-ram", "0", "--ctx-checkpoints", "0"),
    ("--cache-ram", "0", "--ctx-checkpoints", "0", "--kv-unified"),
    ("--flash-attn", "on", "--cache-ram", "0", "--ctx-checkpoints", "0"),
    ("--flash-attn", "off", "--cache-ram", "0", "--ctx-checkpoints", "0"),
    ("--backend-sampling", "--cache-ram", "0", "--ctx-checkpoints", "0"),
)


async def run(report: Report, rounds: int) -> None:
    """Labels: `llama_server@N` for each number of clients; with 16 of them also `raw_loop@16` and `ring@16`.

    Beside them the processor time of the host in ms a token, ours and the peer's (`ring_host_ms@N`,
    `llama_server_host_ms@N`): what noise of the machine disturbs least, and with a GPU all that the host does.
    """
    for clients in CLIENTS:
        await _beside(report, rounds, clients)
    if ALONE in CLIENTS:
        await _alone(report, rounds)
    report.note(
        f"model {MODEL}, {THREADS} threads; {PROMPT_WORDS} words in, {TOKENS} tokens out, no two alike"
    )


async def _beside(report: Report, rounds: int, clients: int) -> None:
    """The ring beside llama-server, both with as many slots as there are clients."""
    options = await best(report, clients, CONTEXT, GRID, lambda server: _trial(server, clients))
    with ring(clients, CONTEXT) as ours, llama_server(clients, CONTEXT, options) as theirs:
        for server in (ours, theirs):
            await _round(server, clients, "warm up", requests=1, tokens=8)
            report.note(f"@{clients}: {server.command}")
        for number in range(rounds):
            found: dict[str, float] = {}
            for server, name in in_turns(number, ours, theirs):
                cpu_s = server.cpu_s
                found[name] = await _round(server, clients, number)
                tokens = clients * _requests(clients) * TOKENS
                report.add(f"{name}_host_ms@{clients}", (server.cpu_s - cpu_s) / tokens * 1000)
            report.add(f"llama_server@{clients}", found["ring"] / found["llama_server"])
            for name, speed in found.items():
                report.add(f"{name}_tokens_per_s@{clients}", speed)


async def _alone(report: Report, rounds: int) -> None:
    """The engine with its scheduler ÷ a bare loop, and the ring ÷ the engine with its scheduler."""
    unified = await _best_bare(report)
    with ring(ALONE, CONTEXT) as ours:
        await _round(ours, ALONE, "warm up", requests=1, tokens=8)
        for number in range(rounds):
            at_once = [queue[0].prompt for queue in _queues(ALONE, number, 1, TOKENS)]
            waiting = [asked.prompt for asked in chain(*_queues(ALONE, number, _requests(ALONE), TOKENS))]
            if number % 2:
                bare = await _loop("bare", at_once, unified=unified)
                same = await _loop("ours", at_once)
                speed = await _round(ours, ALONE, number)
                engine = await _loop("ours", waiting)
            else:
                engine = await _loop("ours", waiting)
                speed = await _round(ours, ALONE, number)
                same = await _loop("ours", at_once)
                bare = await _loop("bare", at_once, unified=unified)
            report.add(f"raw_loop@{ALONE}", same / bare)
            report.add(f"ring@{ALONE}", speed / engine)
            report.add(f"bare_tokens_per_s@{ALONE}", bare)
            report.add(f"engine_tokens_per_s@{ALONE}", engine)


async def _best_bare(report: Report) -> bool:
    prompts = [queue[0].prompt for queue in _queues(ALONE, "grid", 1, TOKENS)]
    found = {unified: await _loop("bare", prompts, unified=unified) for unified in (False, True)}
    for unified, speed in found.items():
        report.note(f"grid of the bare loop: {speed:.4g} tokens/s with kv_unified={unified}")
    return max(found, key=found.__getitem__)


async def _loop(kind: str, prompts: list[str], **more: object) -> float:
    return await loop_tokens_per_s(kind, slots=ALONE, context=CONTEXT, tokens=TOKENS, prompts=prompts, **more)


async def _trial(server: Server, clients: int) -> float:
    await _round(server, clients, "warm up", requests=1, tokens=8)
    return await _round(server, clients, "grid", requests=max(1, _requests(clients) // 2))


async def _round(server: Server, clients: int, seed: object, *, requests: int = 0, tokens: int = 0) -> float:
    """Tokens a second of one round; the prompts are those of `seed`, so that no round finds another's in a cache."""
    tokens = tokens or TOKENS
    queues = _queues(clients, seed, requests or _requests(clients), tokens)
    answers, seconds = await closed_loops(server.ask, queues)
    assert all(answer.completion_tokens == tokens for answer in answers), "an answer ended too soon"
    return tokens_per_s(answers, seconds)


def _requests(clients: int) -> int:
    return REQUESTS.get(clients, 2)


def _queues(clients: int, seed: object, requests: int, tokens: int) -> list[list[Asked]]:
    return [
        [Asked(tokens, words(PROMPT_WORDS, "throughput", seed, client, number)) for number in range(requests)]
        for client in range(clients)
    ]
