"""The options of sampling from the library and the command line, and several answers on their way back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import pytest

from herder.brief import Sampling
from herder.choices import Choice, choices_text, logprobs_text
from herder.pricing import capture
from herder.protocol import Chunk, FinishReason, Lease, Outcome, Settlement
from llama_herder import AsyncHerder, Chance, Done, InvalidRequest, TokenChances, Tokens
from llama_herder.cli.output import Exit
from tests.integration.client_herd import FUNDS, WAIT_S, Herd, Terminal
from tests.integration.ring import MODEL

OPTIONS: dict[str, Any] = {
    "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "typical_p": 0.95, "repeat_penalty": 1.1,
    "frequency_penalty": -0.5, "presence_penalty": 0.25, "penalty_tokens": 128, "seed": 7, "logprobs": 1,
    "ignore_eos": True, "logit_bias": {7: -5.0, 11: 0.5},
}  # fmt: skip
READ = Sampling(**{**OPTIONS, "logit_bias": ((7, -5.0), (11, 0.5))})
FLAGS = [
    "--temperature", "0.7", "--top-p", "0.9", "--top-k", "40", "--min-p", "0.05", "--typical-p", "0.95",
    "--repeat-penalty", "1.1", "--frequency-penalty", "-0.5", "--presence-penalty", "0.25",
    "--penalty-tokens", "128", "--seed", "7", "--logprobs", "1", "--ignore-eos", "--logit-bias", "7=-5",
    "--logit-bias", "11=0.5", "--n", "2",
]  # fmt: skip
CHANCES = [
    [{"token": 7, "text": "r", "logprob": -0.5, "top": [{"token": 8, "text": "b", "logprob": -0.25}]}],
    [],
]


async def answered(herd: Herd) -> Lease:
    """Two answers, told in turns, to the next job; what the worker was given."""
    broker = herd.ring.broker
    leases: list[Lease] = []
    async with asyncio.timeout(WAIT_S):
        while not leases:
            leases = await broker.lease("w1", MODEL, slots=2, kv_free=10**4, kv_total=10**4)
    (lease,) = leases
    said = [Chunk(lease.job_id, lease.attempt, i, 1, text, i % 2) for i, text in enumerate("rbel")]
    await broker.chunk("w1", said)
    settlement = Settlement(
        job_id=lease.job_id,
        attempt=lease.attempt,
        outcome=Outcome.SUCCEEDED,
        text="re",
        finish_reason=FinishReason.STOP,
        prompt_tokens=5,
        completion_tokens=4,
        captured=capture(lease.terms, 4),
        choices=choices_text([Choice("re", "stop", 2), Choice("bl", "length", 2)]),
        logprobs=logprobs_text(CHANCES),  # type: ignore[arg-type]
    )
    await broker.settle("w1", settlement)
    return lease


async def test_all_options_of_the_library(herd: Herd, herder: AsyncHerder) -> None:
    job, lease = await asyncio.gather(herder.run("hi", 40, n=2, **OPTIONS), answered(herd))
    assert (lease.brief.sampling, lease.brief.n) == (READ, 2)
    assert (job.n, job.fee, job.text) == (2, 90, "re")
    assert job.result is not None
    assert [(c.text, c.finish_reason, c.completion_tokens) for c in job.result.choices] == [
        ("re", "stop", 2), ("bl", "length", 2),
    ]  # fmt: skip
    assert job.result.completion_tokens == 4
    expected = TokenChances(7, "r", -0.5, (Chance(8, "b", -0.25),))
    assert job.result.logprobs == job.result.choices[0].logprobs == (expected,)
    assert await herd.balance() == (FUNDS - 14, 0)


async def test_a_stream_says_of_which_answer_it_is(herd: Herd, herder: AsyncHerder) -> None:
    async def heard() -> list[Any]:
        async with herder.stream("hi", 40, n=2) as events:
            return [event async for event in events]

    events, _ = await asyncio.gather(heard(), answered(herd))
    tokens = [event for event in events if isinstance(event, Tokens)]
    assert ["".join(e.text for e in tokens if e.choice == i) for i in (0, 1)] == ["re", "bl"]
    done = events[-1]
    assert isinstance(done, Done)
    assert done.job.result is not None
    assert [choice.text for choice in done.job.result.choices] == ["re", "bl"]


async def test_items_of_a_batch(herd: Herd, herder: AsyncHerder) -> None:
    await herder.batch([{"prompt": "hi", "n": 2, "seed": 9}], 40, **{**OPTIONS, "logprobs": None})
    lease = await answered(herd)
    assert asdict(lease.brief.sampling) == asdict(READ) | {"seed": 9, "logprobs": None}
    assert lease.brief.n == 2


async def test_a_wrong_option_is_named(herder: AsyncHerder) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await herder.submit("hi", 40, n=5)
    assert [name for name, _ in caught.value.errors] == ["n"]
    with pytest.raises(InvalidRequest, match="512"):
        await herder.submit("hi", 40, logit_bias={512: 1.0})


async def test_flags_and_several_answers_on_a_terminal(
    herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(herd, monkeypatch, capsys)
    quoted = json.loads((await terminal("quote", "hi", "--tokens", "40", "--n", "2", "--json")).out)
    assert quoted["fee"] == 90
    shown, lease = await asyncio.gather(terminal("run", "hi", "--tokens", "40", *FLAGS), answered(herd))
    assert (shown.code, shown.out) == (0, "re\n---\nbl\n")
    assert (lease.brief.sampling, lease.brief.n) == (READ, 2)
    again = await terminal("jobs", lease.job_id)
    assert again.out.endswith("re\n---\nbl\n")
    lines, _ = await asyncio.gather(
        terminal("run", "hi", "--tokens", "40", "--n", "2", "--stream", "--json"), answered(herd)
    )
    events = [json.loads(line) for line in lines.out.splitlines()]
    assert [event["choice"] for event in events if event["event"] == "tokens"] == [0, 1, 0, 1]
    assert events[-1]["job"]["result"]["choices"][1]["text"] == "bl"


async def test_flags_that_say_what_the_cache_is_for(
    herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(herd, monkeypatch, capsys)
    for flags, cached, repeatable in (
        ([], True, True),
        (["--cache-prompt"], True, False),
        (["--no-cache-prompt"], False, True),
    ):
        told = ("--tokens", "40", "--n", "2", "--seed", "7", *flags)
        _, lease = await asyncio.gather(terminal("run", "hi", *told), answered(herd))
        assert (lease.brief.cache_prompt, lease.brief.repeatable) == (cached, repeatable)


async def test_what_flags_cannot_be(
    herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(herd, monkeypatch, capsys)
    for flags, said in (
        (["--logit-bias", "x=1"], "--logit-bias x=1: must be ID=BIAS"),
        (["--logit-bias", "7=1", "--logit-bias", "7=2"], "--logit-bias: token 7 is given twice"),
        (["--n", "2", "--stream"], "--stream shows one answer"),
        (["--n", "9"], "n: "),
        (["--json-schema", "/nope"], "--json-schema: cannot read '/nope': no such file or directory"),
        (["--json-schema", __file__], f"--json-schema {__file__}: not JSON"),
    ):
        shown = await terminal("run", "hi", "--tokens", "40", *flags)
        assert (shown.code, shown.out) == (Exit.USAGE, "")
        assert said in shown.err
    assert await herd.balance() == (FUNDS, 0)
