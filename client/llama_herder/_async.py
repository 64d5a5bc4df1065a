"""`AsyncHerder`: the client for asyncio. Thin: performs the flows of `_core` and `_calls` with httpx and sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from llama_herder import _calls, _streams
from llama_herder._async_admin import AsyncAdmin
from llama_herder._async_batches import AsyncBatchCalls
from llama_herder._async_chat import WAITS_MAX, AsyncChatCalls
from llama_herder._async_stream import AsyncEventStream, Line, performed
from llama_herder._async_webhooks import AsyncWebhooks
from llama_herder._core import Broken, Call, Effect, Flow, Outcome, Reply, Send, Sleep, perform
from llama_herder._http import broken_of, client_settings, patience_of, reply_of, request_of, url_of
from llama_herder._json import Page
from llama_herder._patience import REFUSED_S, TRIES
from llama_herder.types import Account, Info, Job, LedgerEntry, Message, Model, Options, Quote, Worker

T = TypeVar("T")
E = TypeVar("E")

_sleep = asyncio.sleep


class AsyncHerder(AsyncBatchCalls, AsyncChatCalls):
    """A herd, seen by one account. Safe to share between tasks; close it, or use it in an `async with`.

    >>> async with AsyncHerder() as herder:
    ...     job = await herder.run("What is a chatbot?", tokens=40)
    >>> job.text
    'A chatbot is a computer program that talks with people in everyday language.'

    A task that is cancelled while it waits leaves its job alive; `cancel` ends it.

    `url` defaults to HERDER_URL, then to http://127.0.0.1:8080; `api_key` to HERDER_API_KEY. `timeout` is seconds
    without a sign of life from the herder; `tries` how often a call is tried where trying again is safe; `refused_s`
    for how many seconds refused connections are sat out, as while a herder restarts (6 of them before the first answer,
    since the URL may be wrong; none with `tries=1`).
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        tries: int = TRIES,
        refused_s: float = REFUSED_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url_of(url)
        self.admin = AsyncAdmin(self)
        self.webhooks = AsyncWebhooks(self)
        self._timeout = timeout
        self._patience = patience_of(tries, refused_s)
        self._answers: dict[asyncio.Task[None], str] = {}
        self._turns = asyncio.Semaphore(WAITS_MAX)
        self._client = httpx.AsyncClient(**client_settings(self.url, api_key, timeout, transport))

    def __repr__(self) -> str:
        return f"AsyncHerder({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closed(wait=error is None)

    async def close(self) -> None:
        """Close the connections, once every callback was called: see `on_answer`."""
        await self._closed(wait=True)

    async def _closed(self, wait: bool) -> None:
        try:
            await self._leave(wait)
        finally:
            await self._client.aclose()

    # --- jobs --------------------------------------------------------------------------------------------

    async def submit(
        self,
        prompt: str | Sequence[Message],
        tokens: int,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """Pay for a prompt (or a chat) and return at once; `.balance` is what is left.

        >>> job = await herder.submit("What is a chatbot?", tokens=40, multiplier=1.5)
        >>> job.fee
        75
        >>> job = await herder.submit([{"role": "user", "content": "Hello"}], tokens=40, model="herd-tiny", max_fee=100)
        """
        return await self._call(_calls.submit(_calls.ask(prompt, tokens, options), idempotency_key))

    async def wait(
        self,
        job: Job | str,
        timeout: float | None = None,
        *,
        poll_s: float = _calls.POLL_S,
        on_poll: Callable[[Job], object] | None = None,
    ) -> Job:
        """The job once it has ended, however it ended. WaitTimeout after `timeout` seconds: the job lives on.

        `on_poll` is called with the job at least every `poll_s` seconds.
        """
        job_id = _calls.id_of(job)
        return await self._perform(
            _calls.waiting(job_id, self.url, self._patience, timeout, poll_s=poll_s, on_poll=on_poll)
        )

    async def run(
        self,
        prompt: str | Sequence[Message],
        tokens: int,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """Submit and wait; the job has an answer, or JobFailed, JobCancelled, JobExpired or WaitTimeout is raised.

        `timeout` is seconds for all of it, also for trying again; without it there is no end. What takes longer is a
        request that is under way: the submission is sent in any case, and the job then looked at once.

        >>> job = await herder.run("What is a chatbot?", tokens=40)
        >>> job.text
        'A chatbot is a computer program that talks with people in everyday language.'
        """
        body = _calls.ask(prompt, tokens, options)
        return await self._perform(_calls.running(body, idempotency_key, self.url, self._patience, timeout))

    def stream(
        self,
        prompt: str | Sequence[Message],
        tokens: int,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        cancel_on_disconnect: bool = False,
        **options: Unpack[Options],
    ) -> AsyncEventStream:
        """Submit, and the answer as it comes; goes on by itself over broken connections. The last event is `Done`.

        JobFailed is raised for a job that failed, WaitTimeout once `timeout` seconds have passed since the first event
        was asked for: the job lives on.
        `cancel_on_disconnect` has the herder cancel it once this end is gone, be it for a moment.

        >>> async for event in herder.stream("What is a chatbot?", tokens=40):
        ...     if isinstance(event, Tokens):
        ...         print(event.text, end="", flush=True)
        A chatbot is a computer program that talks with people in everyday language.
        """
        body = _calls.ask(prompt, tokens, options)
        return self._stream(
            _streams.streaming(
                body,
                idempotency_key,
                self.url,
                self._patience,
                timeout=timeout,
                cancel_on_disconnect=cancel_on_disconnect,
            )
        )

    def events(
        self,
        job: Job | str,
        *,
        after: str | None = None,
        timeout: float | None = None,
        cancel_on_disconnect: bool = False,
    ) -> AsyncEventStream:
        """The events of a job that is there, as `stream` gives them: from the first, or from the one after `after`."""
        job_id = _calls.id_of(job)
        return self._stream(
            _streams.following(
                job_id,
                after,
                self.url,
                self._patience,
                timeout=timeout,
                cancel_on_disconnect=cancel_on_disconnect,
            )
        )

    async def quote(
        self, prompt: str | Sequence[Message], tokens: int | None = None, **options: Unpack[Options]
    ) -> Quote:
        """What a job would cost now, and whether it would be accepted; nothing is charged."""
        return await self._call(_calls.quote(_calls.ask(prompt, tokens, options)))

    async def job(self, job_id: str) -> Job:
        """A job as it is now."""
        return await self._call(_calls.job(job_id))

    async def jobs(self, limit: int | None = None, cursor: str | None = None) -> Page[Job]:
        """The account's jobs, newest first."""
        return await self._call(_calls.jobs(limit, cursor))

    async def cancel(self, job: Job | str) -> Job:
        """Take a queued job out of the line (refunded at once), or ask the worker of a running one to stop."""
        return await self._call(_calls.cancel(_calls.id_of(job)))

    # --- the herd and the account ------------------------------------------------------------------------

    async def info(self) -> Info:
        """The price list and how busy the herd is."""
        return await self._call(_calls.info())

    async def models(self) -> Page[Model]:
        """The herd's models."""
        return await self._call(_calls.models())

    async def workers(self) -> Page[Worker]:
        """The herd's workers."""
        return await self._call(_calls.workers())

    async def account(self) -> Account:
        """The account of this key: what it can spend, and what its live jobs hold."""
        return await self._call(_calls.account())

    async def ledger(self, limit: int | None = None, cursor: str | None = None) -> Page[LedgerEntry]:
        """Every movement of the account's credits, newest first."""
        return await self._call(_calls.ledger(limit, cursor))

    # --- how ---------------------------------------------------------------------------------------------

    async def _call(self, call: Call[T]) -> T:
        return await self._perform(perform(call, self.url, self._patience))

    async def _perform(self, flow: Flow[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                effect = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = await self._act(effect)

    def _stream(self, flow: _streams.StreamFlow) -> AsyncEventStream:
        return AsyncEventStream(self._emitted(flow))

    def _emitted(self, flow: _streams.Emitting[E]) -> AsyncGenerator[E, None]:
        return performed(flow, Line(self._client, self._timeout), self._act)

    async def _act(self, effect: Effect) -> Outcome:
        return await (_sleep(effect.seconds) if isinstance(effect, Sleep) else self._send(effect))

    async def _send(self, send: Send) -> Reply | Broken:
        arguments: dict[str, Any] = request_of(send, self._timeout)
        try:
            return reply_of(await self._client.request(**arguments))
        except httpx.RequestError as error:
            return broken_of(error)
