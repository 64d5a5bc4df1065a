"""What one long prompt does to those who read along: the worst gap between two of their tokens, and the wall time.

Four sequences decode; then a prompt of three quarters of the context comes. llama-server is at the settings of a small
grid where gap × wall time is least: small batches keep the gap short and make the prompt slow. Beside it the same for
llama-server as it comes, with the batches that it has by default.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise

from benchmarks.callers import Answer, Asked, words
from benchmarks.report import Report
from benchmarks.servers import Server, best, in_turns, llama_server, ring

READERS = 4
SLOTS = READERS + 1
CONTEXT = 4096
READER_WORDS = 32
READER_TOKENS = 256
LONG_WORDS = CONTEXT * 3 // 4  # a token each
LONG_TOKENS = 16
BEGUN = 8  # events that each reader has heard before the long prompt comes
GRID: tuple[tuple[str, ...], ...] = (
    (),
    ("--batch-size", "512"),
    ("--batch-size", "256", "--ubatch-size", "256"),
    ("--batch-size", "128", "--ubatch-size", "128"),
    ("--batch-size", "128", "--ubatch-size", "128", "--flash-attn", "off"),
    ("--batch-size", "64", "--ubatch-size", "64", "--flash-attn", "off"),
    ("--batch-size", "512", "--kv-unified"),
)


async def run(report: Report, rounds: int) -> None:
    """Labels: `worst_gap` and `wall`, ours ÷ llama-server's (`…_default`: without options); and both in seconds."""
    options = await best(report, SLOTS, CONTEXT, GRID, _trial)
    with (
        ring(SLOTS, CONTEXT) as ours,
        llama_server(SLOTS, CONTEXT, options) as theirs,
        llama_server(SLOTS, CONTEXT, ()) as default,
    ):
        for server in (ours, theirs, default):
            await _round(server, "warm up")
            report.note(server.command)
        for number in range(rounds):
            found: dict[str, tuple[float, float]] = {}
            for server, name in (*in_turns(number, ours, theirs), (default, "llama_server_default")):
                found[name] = await _round(server, number)
                report.add(f"{name}_gap_s", found[name][0])
                report.add(f"{name}_wall_s", found[name][1])
            report.add("worst_gap", found["ring"][0] / found["llama_server"][0])
            report.add("wall", found["ring"][1] / found["llama_server"][1])
            report.add("worst_gap_default", found["ring"][0] / found["llama_server_default"][0])
            report.add("wall_default", found["ring"][1] / found["llama_server_default"][1])
    report.note(
        f"{READERS} readers of {READER_TOKENS} tokens, one prompt of {LONG_WORDS} words where {CONTEXT} tokens fit;"
        " the grid's value is 1 ÷ (gap × wall)"
    )


async def _trial(server: Server) -> float:
    await _round(server, "warm up")
    gap_s, wall_s = await _round(server, "grid")
    return 1 / (gap_s * wall_s)


async def _round(server: Server, seed: object) -> tuple[float, float]:
    """(the worst gap between two tokens of any reader, the seconds until all five are answered)."""
    began = time.monotonic()
    begun = asyncio.Event()
    events = [0] * READERS

    def hears(reader: int) -> Callable[[], None]:
        def heard() -> None:
            events[reader] += 1
            if min(events) >= BEGUN:
                begun.set()

        return heard

    reading = [
        asyncio.create_task(
            server.ask(Asked(READER_TOKENS, words(READER_WORDS, "reader", seed, reader), heard=hears(reader)))
        )
        for reader in range(READERS)
    ]
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait([waiting, *reading], return_when=asyncio.FIRST_COMPLETED)
    assert begun.is_set(), "a reader ended before all had begun"
    long = await server.ask(Asked(LONG_TOKENS, words(LONG_WORDS, "long", seed)))
    readers = await asyncio.gather(*reading)
    wall_s = time.monotonic() - began
    assert long.prompt_tokens >= LONG_WORDS, "the long prompt is not long"
    return max(map(_worst_gap_s, readers)), wall_s


def _worst_gap_s(answer: Answer) -> float:
    assert answer.completion_tokens == READER_TOKENS, "a reader's answer ended too soon"
    return max(later - sooner for (sooner, _), (later, _) in pairwise(answer.arrivals))
