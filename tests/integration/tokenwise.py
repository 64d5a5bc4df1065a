"""A worker made of calls that tells each token with its log-probability, as a real one does; and its reader's side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx

from herder.broker import Broker
from herder.choices import Chance, TokenChances, logprobs_text, told_text
from herder.pricing import capture
from herder.protocol import Chunk, FinishReason, Lease, Outcome, Settlement
from tests.integration.api import MODEL, WORKER

WAIT_S = 20


def token(text: str, number: int = 7, top: int = 0) -> TokenChances:
    """A token that was drawn."""
    likeliest: list[Chance] = [{"token": number + i, "text": text, "logprob": -0.5 - i} for i in range(top)]
    return {"token": number, "text": text, "logprob": -0.5, "top": likeliest}


class Hand:
    """A worker for one job at a time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._said = 0
        self._tokens: list[TokenChances] = []

    async def lease(self) -> Lease:
        """The next job, as soon as there is one."""
        async with asyncio.timeout(WAIT_S):
            while True:
                leases = await self._broker.lease(WORKER, MODEL, slots=1, kv_free=10**6, kv_total=10**6)
                if leases:
                    self._said, self._tokens = 0, []
                    return leases[0]

    async def say(self, lease: Lease, text: str, *tokens: TokenChances, count: int | None = None) -> None:
        """A piece of the answer with the tokens that end in it."""
        told = told_text(tokens) if tokens and lease.brief.sampling.logprobs is not None else None
        number = count or len(tokens) or 1
        chunk = Chunk(lease.job_id, lease.attempt, self._said, number, text, logprobs=told)
        (reply,) = await self._broker.chunk(WORKER, [chunk])
        assert reply.value == "OK", reply
        self._said += number
        self._tokens += tokens

    async def settle(
        self,
        lease: Lease,
        text: str,
        tokens: Sequence[TokenChances] = (),
        *,
        reason: FinishReason = FinishReason.STOP,
        outcome: Outcome = Outcome.SUCCEEDED,
        error_code: str = "engine_error",
    ) -> None:
        """The end. `tokens`: all of the answer's, where more than have been said."""
        every = list(tokens) or self._tokens
        settled = Settlement(
            job_id=lease.job_id,
            attempt=lease.attempt,
            outcome=outcome,
            text=text,
            finish_reason=reason,
            prompt_tokens=5,
            completion_tokens=max(len(every), 1),
            captured=capture(lease.terms, max(len(every), 1)),
            logprobs=logprobs_text([every]) if lease.brief.sampling.logprobs is not None else None,
        )
        if outcome is Outcome.FAILED:
            settled = replace(
                settled,
                text="",
                finish_reason=None,
                captured=0,
                error_code=error_code,
                error_message="it broke",
            )
        await self._broker.settle(WORKER, settled)

    async def die(self, lease: Lease) -> None:
        """The worker dies with this job."""
        assert await self._broker.release(WORKER, [(lease.job_id, lease.attempt)], died=True) == (1, 0)


def data_of(reply: httpx.Response) -> list[dict[str, Any]]:
    """What each event of a stream says, which is nothing but `data` and comments."""
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    blocks = [block for block in reply.text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data:") for block in blocks), reply.text
    return [json.loads(block.removeprefix("data:")) for block in blocks]
