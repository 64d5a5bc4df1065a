"""`AsyncChat`, and what `AsyncHerder` can do beyond single jobs: chats, typed answers, callbacks, whole lists.

Thin: performs the flows of `_dialogue` and `_typed`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from llama_herder import _calls, _paging, _typed
from llama_herder._callbacks import (
    LEAVE_S_MAX,
    TURN_S,
    WAITING_MAX,
    Expected,
    OnAnswer,
    OnError,
    left_behind,
    log,
)
from llama_herder._core import Flow
from llama_herder._dialogue import TOKENS, Dialogue
from llama_herder._json import Page
from llama_herder._patience import Patience
from llama_herder._typed import ModelClass
from llama_herder.errors import HerderError, WaitTimeout
from llama_herder.problems import InvalidRequest
from llama_herder.types import Job, Message, Options, Untyped

if TYPE_CHECKING:
    from llama_herder._async import AsyncHerder
    from llama_herder._async_stream import AsyncEventStream

T = TypeVar("T")
M = TypeVar("M", bound=ModelClass)

WAITS_MAX = 50  # at once: half of the connections


class AsyncChat(Dialogue):
    """A conversation that remembers what was said; not for two tasks at once.

    >>> chat = AsyncChat(herder, system="Answer in one sentence.")
    >>> await chat.say("What is a chatbot?")
    'A chatbot is a computer program that talks with people in everyday language.'

    As `Chat` does, it leaves the oldest turns out once they no longer fit, never the system prompt.
    """

    def __init__(
        self,
        herder: AsyncHerder,
        *,
        messages: Sequence[Message] = (),
        tokens: int = TOKENS,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(messages, tokens, options)
        self._herder = herder

    async def say(self, text: str, *, timeout: float | None = None, **options: Unpack[Options]) -> str:
        """The answer to one more turn of the user's. Raises what `AsyncHerder.run` does.

        ContextExceeded: with every earlier turn left out it still does not fit.
        """
        herder = self._herder
        flow = self._saying(text, options, herder.url, herder._patience, timeout)
        return (await herder._perform(flow)).text

    def stream(
        self,
        text: str,
        *,
        timeout: float | None = None,
        cancel_on_disconnect: bool = False,
        **options: Unpack[Options],
    ) -> AsyncEventStream:
        """The same as it comes: the events of `AsyncHerder.stream`.

        >>> async with AsyncChat(herder).stream("What is a chatbot?") as events:
        ...     async for event in events:
        ...         if isinstance(event, Tokens):
        ...             print(event.text, end="")
        A chatbot is a computer program that talks with people in everyday language.
        """
        herder = self._herder
        return herder._stream(
            self._streaming(
                text,
                options,
                herder.url,
                herder._patience,
                timeout=timeout,
                cancel_on_disconnect=cancel_on_disconnect,
            )
        )


class AsyncChatCalls:
    """What `AsyncHerder` has of it."""

    url: str
    _patience: Patience
    _answers: dict[asyncio.Task[None], str]
    _turns: asyncio.Semaphore

    if TYPE_CHECKING:

        async def _perform(self, flow: Flow[T]) -> T: ...
        async def wait(self, job: Job | str, timeout: float | None = None) -> Job: ...

    async def chat(
        self,
        messages: Sequence[Message],
        tokens: int = TOKENS,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """The answer to a chat, as `run` gives it. `AsyncChat` keeps the history for you.

        >>> job = await herder.chat([{"role": "user", "content": "What is a chatbot?"}])
        >>> job.message["role"]
        'assistant'
        """
        body = _calls.ask(_calls.chat(messages), tokens, options)
        return await self._perform(_calls.running(body, idempotency_key, self.url, self._patience, timeout))

    @overload
    async def generate(self, prompt: str | Sequence[Message], tokens: int = ..., *, output_type: type[M],
                       timeout: float | None = ..., idempotency_key: str | None = ...,
                       **options: Unpack[Untyped]) -> M: ...  # fmt: skip
    @overload
    async def generate(self, prompt: str | Sequence[Message], tokens: int = ..., *, output_type: Mapping[str, Any],
                       timeout: float | None = ..., idempotency_key: str | None = ...,
                       **options: Unpack[Untyped]) -> dict[str, Any]: ...  # fmt: skip
    @overload
    async def generate(self, prompt: str | Sequence[Message], tokens: int = ..., *, output_type: None = ...,
                       timeout: float | None = ..., idempotency_key: str | None = ...,
                       **options: Unpack[Untyped]) -> str: ...  # fmt: skip
    async def generate(
        self,
        prompt: str | Sequence[Message],
        tokens: int = TOKENS,
        *,
        output_type: type[Any] | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Untyped],
    ) -> Any:
        """The answer itself: text, or with an `output_type` a dict of this form, or an object of a pydantic model.

        >>> answer = await herder.generate("How old are you?", output_type={"age": "int"})
        >>> type(answer["age"])
        <class 'int'>

        Raises what `run` does, and OutputInvalid where the class refuses what its schema allows.
        """
        form = _typed.wanted(output_type)
        body = _calls.ask(prompt, tokens, {**options, **form.options})
        flow = _calls.running(body, idempotency_key, self.url, self._patience, timeout)
        return form.read(await self._perform(flow))

    def on_answer(
        self,
        job: Job | str,
        callback: OnAnswer | Callable[[Job], Awaitable[object]],
        *,
        on_error: OnError | Callable[[HerderError], Awaitable[object]] | None = None,
    ) -> asyncio.Task[None]:
        """Call (or await) `callback(job)` once the job has an answer; returns the task that waits.

        >>> job = await herder.submit("What is a chatbot?", tokens=40)
        >>> waiting = herder.on_answer(job, lambda job: print(job.text))
        >>> await waiting
        A chatbot is a computer program that talks with people in everyday language.

        Without an answer `on_error(error)` is called; without that the error is logged under `llama_herder`. `close`
        waits for what is open, ten minutes at most, and logs which jobs nobody was told of; an `async with` block that
        an exception ends does not wait. Up to 10,000 may be open.
        """
        job_id = _calls.id_of(job)
        if len(self._answers) >= WAITING_MAX:
            raise InvalidRequest(f"{WAITING_MAX} answers are waited for already: for more, take `map`")
        task = asyncio.get_running_loop().create_task(self._told(job_id, callback, on_error))
        self._answers[task] = job_id
        task.add_done_callback(lambda ended: self._answers.pop(ended, None))
        return task

    async def every(
        self, listing: Callable[..., Awaitable[Page[T]]], *arguments: Any, **options: Any
    ) -> AsyncIterator[T]:
        """All of a list, read page by page as the loop goes on.

        >>> async for job in herder.every(herder.jobs):
        ...     assert job.id.startswith("job_")

        `listing` is a call that gives a Page; what stands behind it is passed on.
        """
        pages: _paging.Pages[T] = _paging.paged()
        cursor = next(pages)
        while True:
            page = await listing(*arguments, **{"limit": _paging.PAGE_ITEMS, **options, "cursor": cursor})
            for item in page:
                yield item
            try:
                cursor = pages.send(page)
            except StopIteration:
                return

    async def _told(
        self, job_id: str, callback: Callable[..., object], on_error: Callable[..., object] | None
    ) -> None:
        try:
            ended = _calls.answered(await self._ended(Expected(job_id, callback)))
        except HerderError as error:
            if on_error is None:
                log.error("no answer of %s: %s", job_id, error)
            else:
                await _called(on_error, error, job_id)
        else:
            await _called(callback, ended, job_id)

    async def _ended(self, expected: Expected) -> Job:
        """The job as it ended; whoever waits takes turns with the others."""
        while True:
            async with self._turns:
                try:
                    return await self.wait(expected.job_id, TURN_S)
                except WaitTimeout as error:
                    expected = expected.later(error, time.monotonic())

    async def _leave(self, wait: bool) -> None:
        """Before the connections are closed: wait for what is open, and say what was not told."""
        others = {
            task: job_id for task, job_id in self._answers.items() if task is not asyncio.current_task()
        }
        if wait and others:
            await asyncio.wait(others, timeout=LEAVE_S_MAX)
        left = {task: job_id for task, job_id in others.items() if not task.done()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        left_behind(left.values())


async def _called(callback: Callable[..., object], argument: object, job_id: str) -> None:
    """A callback's own mistake is logged and ends nothing."""
    try:
        outcome = callback(argument)
        if inspect.isawaitable(outcome):
            await outcome
    except Exception:
        log.exception("the callback for %s failed", job_id)
