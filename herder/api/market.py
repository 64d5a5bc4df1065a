"""What submissions look up of the market, remembered for a tenth of a second, so that a rush asks Redis once and not
once a prompt.

An old price cannot be sold at: the submit script refuses it, and the list is read afresh.
"""

from __future__ import annotations

import asyncio
import time

from herder.broker import Broker
from herder.pricing import Prices
from herder.records import ModelState

FRESH_S = 0.1
MODELS_MAX = 1_000


class Market:
    """The price list and the models as they were at most FRESH_S ago."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._prices: tuple[float, Prices] | None = None
        self._states: dict[str, tuple[float, ModelState]] = {}
        self._models: tuple[float, list[str]] | None = None
        self._asking = asyncio.Lock()  # of all that come when it is no longer fresh, one asks

    async def prices(self) -> Prices:
        """The price list."""
        kept = self._prices
        if kept is None or kept[0] < time.monotonic():
            async with self._asking:
                kept = self._prices
                if kept is None or kept[0] < time.monotonic():
                    prices = await self._broker.prices()
                    self._prices = kept = (time.monotonic() + FRESH_S, prices)
        return kept[1]

    async def models(self) -> list[str]:
        """The names of all models; where there is none, asked anew each time."""
        kept = self._models
        if kept is None or kept[0] < time.monotonic() or not kept[1]:
            async with self._asking:
                kept = self._models
                if kept is None or kept[0] < time.monotonic() or not kept[1]:
                    names = await self._broker.models()
                    self._models = kept = (time.monotonic() + FRESH_S, names)
        return kept[1]

    async def state(self, model: str) -> ModelState | None:
        """A model as it stands; None for an unknown one, which is asked for anew each time."""
        kept = self._states.get(model)
        if kept is None or kept[0] < time.monotonic():
            async with self._asking:
                return await self._state(model)
        return kept[1]

    async def _state(self, model: str) -> ModelState | None:
        kept = self._states.get(model)
        if kept is not None and kept[0] >= time.monotonic():
            return kept[1]
        state = await self._broker.model_state(model)
        if state is None:
            self._states.pop(model, None)
        else:
            if len(self._states) >= MODELS_MAX:
                self._states.clear()
            self._states[model] = (time.monotonic() + FRESH_S, state)
        return state

    def forget(self) -> None:
        """Look everything up afresh: a price was refused, or a test has changed something."""
        self._prices = self._models = None
        self._states.clear()
