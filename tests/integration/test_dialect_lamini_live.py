"""Lamini's blocking answers over a real connection: whoever hangs up pays for nothing that was not used."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from herder.broker import Broker
from herder.settings import Settings
from tests.integration.api import MODEL
from tests.integration.streaming import Serving, serving

WAIT_S = 20
BODY = {"model_name": MODEL, "max_new_tokens": 9}


async def _held(herder: Serving) -> int:
    account = await herder.herd.ledger.account("alice")
    assert account is not None
    return account.held


@pytest.mark.parametrize("prompt", ["a", ["a", "b", "c"]])
async def test_hanging_up_cancels_and_refunds(settings: Settings, broker: Broker, prompt: Any) -> None:
    async with serving(settings) as herder, asyncio.timeout(WAIT_S):
        before = await herder.herd.ledger.account("alice")
        async with herder.client() as client:
            asked = asyncio.create_task(client.post("/v1/completions", json={**BODY, "prompt": prompt}))
            while herder.sample("herder_long_polls") != 1:
                await broker.ping()
            assert await _held(herder) > 0
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        while await _held(herder):
            await broker.ping()
        assert await herder.herd.ledger.account("alice") == before
