"""What submissions look up of the market, remembered for a tenth of a second, so that a rush asks Redis once and not
once a prompt.

An old price cannot be sold at: the submit script refuses it, and the list is read afresh.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from herder.broker import Broker
from herder.pricing import Prices
from herder.records import ModelState

FRESH_S = 0.1
AHEAD_S = 0.03
MODELS_MAX = 1_000

T = TypeVar("T")


class _Seen(Generic[T]):
    """One thing as it was at most FRESH_S ago; nothing at all (no model) is looked for anew each time.

    Shortly before that time is over one caller looks again, and nobody else waits for it.
    """

    def __init__(self, asking: asyncio.Lock, look: Callable[[], Awaitable[T]]) -> None:
        self._asking = asking  # of all that come when it is no longer fresh, one asks
        self._look = look
        self._until = 0.0
        self._kept: T | None = None

    async def now(self) -> T:
        """The thing."""
        left_s = self._until - time.monotonic()
        if self._kept is not None and (left_s > AHEAD_S or (left_s > 0 and self._asking.locked())):
            return self._kept
        async with self._asking:
            if self._kept is not None and self._until - time.monotonic() > AHEAD_S:
                return self._kept
            found = await self._look()
            self._until = time.monotonic() + FRESH_S
            self._kept = found or None
            return found


class Market:
    """The price list and the models as they were at most FRESH_S ago."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._asking = asyncio.Lock()
        self.forget()

    async def prices(self) -> Prices:
        """The price list."""
        return await self._prices.now()

    async def models(self) -> list[str]:
        """The names of all models; where there is none, asked anew each time."""
        return await self._models.now()

    async def state(self, model: str) -> ModelState | None:
        """A model as it stands; None for an unknown one, which is asked for anew each time."""
        seen = self._states.get(model)
        if seen is None:
            if len(self._states) >= MODELS_MAX:
                self._states.clear()
            self._states[model] = seen = _Seen(self._asking, partial(self._broker.model_state, model))
        state = await seen.now()
        if state is None:
            self._states.pop(model, None)
        return state

    def forget(self) -> None:
        """Look everything up afresh: a price was refused, or a test has changed something."""
        self._prices: _Seen[Prices] = _Seen(self._asking, self._broker.prices)
        self._models: _Seen[list[str]] = _Seen(self._asking, self._broker.models)
        self._states: dict[str, _Seen[ModelState | None]] = {}
