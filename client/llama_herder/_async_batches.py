"""The calls of the asyncio client on batches, and `AsyncBatchResults`, the stream they give."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from llama_herder import _batch_calls, _batch_results
from llama_herder._calls import id_of
from llama_herder._core import Call
from llama_herder._json import Page
from llama_herder._patience import Patience
from llama_herder._streams import Emitting
from llama_herder.batches import Batch, BatchResult, Charge, Prompts
from llama_herder.types import Options

T = TypeVar("T")
E = TypeVar("E")


class AsyncBatchResults(AsyncIterator[BatchResult]):
    """How the items of one batch ended, as they come; nothing is sent before the first is asked for.

    `batch` is the batch as it was accepted, once `map` has submitted it. Leaving the loop cancels nothing,
    unless it was asked for with `cancel_on_exit`.

    >>> async with herder.map(["What is a chatbot?", "What is a llama?"], tokens=40) as results:
    ...     async for result in results:
    ...         print(result.index, result.text)
    0 A chatbot is a computer program that talks with people in everyday language.
    1 A llama is a woolly animal from South America that carries loads and lives in herds.
    """

    batch: Batch | None = None

    def __init__(self) -> None:
        self._results: AsyncGenerator[BatchResult, None]

    async def __anext__(self) -> BatchResult:
        return await anext(self._results)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hang up."""
        await self._results.aclose()

    def _accept(self, batch: Batch) -> None:
        self.batch = batch


class AsyncBatchCalls:
    """What `AsyncHerder` can do with many prompts at once."""

    url: str
    _patience: Patience

    if TYPE_CHECKING:

        async def _call(self, call: Call[T]) -> T: ...
        def _emitted(self, flow: Emitting[E]) -> AsyncGenerator[E, None]: ...

    async def batch(
        self,
        items: Prompts,
        tokens: int | None = None,
        *,
        idempotency_key: str | None = None,
        charge: Charge = "all_or_nothing",
        webhook_per_item: bool = False,
        **options: Unpack[Options],
    ) -> Batch:
        """Pay for many prompts (texts, chats, or items of their own) at once and return; nothing or all is charged.

        With `charge="as_many_as_affordable"` the items that the balance does not reach to are refused, from the last
        one on. `fee` and `max_fee` are for the whole batch, `webhook_url` hears of its end.

        >>> batch = await herder.batch(["What is a chatbot?", "What is a llama?"], tokens=40)
        >>> batch = await herder.batch([{"custom_id": "a", "prompt": "Hi", "tokens": 8}], multiplier=1.5)
        """
        return await self._call(
            _batch_calls.batch(
                items,
                tokens,
                options,
                key=idempotency_key,
                charge=charge,
                webhook_per_item=webhook_per_item,
            )
        )

    async def batch_status(self, batch: Batch | str) -> Batch:
        """A batch as it is now."""
        return await self._call(_batch_calls.batch_status(id_of(batch)))

    async def batches(self, limit: int | None = None, cursor: str | None = None) -> Page[Batch]:
        """The account's batches, newest first."""
        return await self._call(_batch_calls.batches(limit, cursor))

    async def cancel_batch(self, batch: Batch | str) -> Batch:
        """Take what is left of a batch out of the line and refund it; running items stop soon. Safe to repeat."""
        return await self._call(_batch_calls.cancel_batch(id_of(batch)))

    def batch_results(self, batch: Batch | str, *, cursor: int = 0, follow: bool = True) -> AsyncBatchResults:
        """How its items ended, in that order, each once; goes on by itself over broken connections.

        `cursor` is that of the last result already seen; without `follow` it ends with what there is now.

        >>> batch = await herder.batch([{"custom_id": "row-1", "prompt": "What is a llama?"}], tokens=40)
        >>> async for result in herder.batch_results(batch):
        ...     print(result.custom_id, result.status)
        row-1 succeeded
        """
        flow = _batch_results.results(id_of(batch), cursor, follow, self.url, self._patience)
        found = AsyncBatchResults()
        found._results = self._emitted(flow)
        return found

    def map(
        self,
        prompts: Prompts,
        tokens: int | None = None,
        *,
        ordered: bool = True,
        cancel_on_exit: bool = False,
        idempotency_key: str | None = None,
        charge: Charge = "all_or_nothing",
        webhook_per_item: bool = False,
        **options: Unpack[Options],
    ) -> AsyncBatchResults:
        """A batch and its results in one loop: in the order of the prompts, or with `ordered=False` as they end.

        A prompt that failed is a result with an `error`. A loop that is left early leaves the batch running;
        `cancel_on_exit` cancels it then, once the stream is closed.

        >>> async for result in herder.map(["What is a chatbot?", "What is a llama?"], tokens=40):
        ...     print(result.index, result.captured)
        0 ...
        1 ...
        """
        call = _batch_calls.batch(
            prompts,
            tokens,
            options,
            key=idempotency_key,
            charge=charge,
            webhook_per_item=webhook_per_item,
        )
        found = AsyncBatchResults()
        flow = _batch_results.mapped(call, ordered, self.url, self._patience, found._accept)
        found._results = self._mapped(found, flow, cancel_on_exit)
        return found

    async def _mapped(
        self, found: AsyncBatchResults, flow: Emitting[BatchResult], cancel_on_exit: bool
    ) -> AsyncGenerator[BatchResult, None]:
        whole = False
        try:
            async with contextlib.aclosing(self._emitted(flow)) as results:
                async for result in results:
                    yield result
            whole = True
        finally:
            if cancel_on_exit and not whole and found.batch is not None:
                await self.cancel_batch(found.batch)
