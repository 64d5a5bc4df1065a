"""`python -m tests.conformance.bulk`: 1,000 typed calls, and 10,000 prompts in one call of either API, to a real herd.

Every success parses and fits its type; every failure is refunded; lists are answered in order and charged once; and in
the end every balance is what its postings add up to.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from llama_herder import Herder
from tests.e2e.herd import Up

CREDITS = 100_000_000
CALLS = 1_000
THREADS = 20
PROMPTS = 10_000
TOKENS = 4
LIMIT_S = 1_800.0
SUCCESSES_LEAST = 0.95
# Beginnings that the tiny model goes on with in one way only, whatever is decoded beside them.
OPENINGS = (
    "A chatbot is", "A llama is", "The meaning of life is", "Three colours are", "Three animals are",
)  # fmt: skip
# What an answer may be, and for each field what its value must be.
TYPES: tuple[dict[str, str], ...] = (
    {"age": "int"},
    {"age": "int", "units": "str"},
    {"price": "float", "sold": "bool"},
    {"response": "str", "explanation": "str"},
)
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def main() -> int:
    """The command line; 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.bulk", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    given = parser.parse_args()
    with herd() as up, Herder(up.url, up.keys["demo"]) as herder:
        typed_calls(up, herder, given.calls)
        lamini_list(up, herder, given.prompts)
        batch(herder, given.prompts)
        with Herder(up.url, up.keys["admin"]) as admin:
            audit = admin.admin.audit()
    assert audit.clean, audit.problems
    print("audit: clean")
    return 0


@contextmanager
def herd() -> Iterator[Up]:
    """A herd with credits for all of it."""
    with tempfile.TemporaryDirectory(prefix="bulk") as folder:
        up = Up(Path(folder), demo_credits=CREDITS, rate_limit_per_minute=1_000_000)
        try:
            yield up.start()
        finally:
            up.end()


def typed_calls(up: Up, herder: Herder, calls: int) -> None:
    """One prompt and one type a call, `THREADS` at once, over HTTP."""
    before, started = _spent(herder), time.monotonic()
    with (
        httpx.Client(base_url=up.url, headers=_key(up), timeout=LIMIT_S) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        outcomes = list(pool.map(lambda number: _typed(client, number), range(calls)))
    counts = Counter(outcome for outcome, _ in outcomes)
    spent = _spent(herder) - before
    assert spent == sum(fee for _, fee in outcomes), "only successes are paid for"
    share = counts["success"] / calls
    took_s = time.monotonic() - started
    print(f"{calls} typed calls in {took_s:.0f} s: {dict(counts)}, {share:.1%} succeed, {spent} credits")
    assert share >= SUCCESSES_LEAST


def _typed(client: httpx.Client, number: int) -> tuple[str, int]:
    wanted = TYPES[number % len(TYPES)]
    body = {"model_name": "herd-tiny", "prompt": f"Question {number}: how much is it?", "out_type": wanted,
            "max_new_tokens": 120}  # fmt: skip
    reply = client.post("/v1/completions", json=body)
    if reply.status_code != 200:
        assert reply.json()["code"] == "answer_failed", reply.text
        return str(reply.json()["reason"]), 0
    found: dict[str, Any] = reply.json()
    assert list(found) == list(wanted), found
    for name, kind in wanted.items():
        assert type(found[name]) in _KINDS[kind], found
    return "success", int(reply.headers["x-herder-fee"])


def lamini_list(up: Up, herder: Herder, prompts: int) -> None:
    """All of them in one request, answered in order."""
    before, holds, started = _spent(herder), _holds(herder), time.monotonic()
    asked = _openings(prompts)
    body = {
        "model_name": "herd-tiny",
        "prompt": asked,
        "max_new_tokens": TOKENS,
    }
    reply = httpx.post(f"{up.url}/v1/completions", json=body, headers=_key(up), timeout=LIMIT_S)
    assert reply.status_code == 200, reply.text[:500]
    texts = [each["output"] for each in reply.json()]
    assert len(texts) == prompts
    print(
        f"{prompts} prompts in Lamini's list in {time.monotonic() - started:.0f} s, {_spent(herder) - before} credits"
    )
    assert _holds(herder) == holds + 1, "one charge"
    _in_order(herder, asked, texts)


def batch(herder: Herder, prompts: int) -> None:
    """The same through `/v1/batches`."""
    before, holds, started = _spent(herder), _holds(herder), time.monotonic()
    asked = _openings(prompts)
    made = herder.batch(asked, tokens=TOKENS, raw=True)
    texts = [""] * prompts
    for answer in herder.batch_results(made):
        assert answer.status == "succeeded", answer
        texts[answer.index] = answer.text
    print(
        f"{prompts} prompts in /v1/batches in {time.monotonic() - started:.0f} s, {_spent(herder) - before} credits"
    )
    assert _holds(herder) == holds + 1, "one charge"
    _in_order(herder, asked, texts)


def _openings(count: int) -> list[str]:
    """Prompts in an order that nobody guesses, and that is the same each time."""
    return random.Random(count).choices(OPENINGS, k=count)


def _in_order(herder: Herder, asked: list[str], texts: list[str]) -> None:
    """Each goes on as its prompt does alone."""
    alone = {each: herder.run(each, tokens=TOKENS, raw=True).text for each in OPENINGS}
    assert len(set(alone.values())) == len(OPENINGS), alone
    wrong = [i for i, prompt in enumerate(asked) if texts[i] != alone[prompt]]
    assert not wrong, (wrong[:10], texts[wrong[0]], alone)


def _holds(herder: Herder) -> int:
    """How many times the account was charged."""
    page = herder.ledger(limit=100)
    found = sum(entry.kind == "hold" for entry in page)
    while page.next is not None:
        page = herder.ledger(limit=100, cursor=page.next)
        found += sum(entry.kind == "hold" for entry in page)
    return found


def _spent(herder: Herder) -> int:
    return CREDITS - herder.account().available


def _key(up: Up) -> dict[str, str]:
    return {"Authorization": f"Bearer {up.keys['demo']}"}


if __name__ == "__main__":
    sys.exit(main())
