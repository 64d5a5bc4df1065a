"""One Redis subscription for a process, many waiters. A ring may be lost: whoever waits reads the log as well.

Knows nothing of what the messages mean. A lost connection is made again with back-off, and every listener is rung
once then, since a ring may have been missed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

import redis.asyncio
import redis.exceptions

BACKLOG_MAX = 1_024
RECONNECT_S_MIN = 0.05
RECONNECT_S_MAX = 2.0
CONFIRM_S = 1.0
READ_S = 5.0
MISSED = b""


class Listener:
    """A waiter on one or more channels. Use as an async context manager; `next` returns messages in order.

    Holds at most BACKLOG_MAX messages; when that overflows, or the connection was lost, it yields `MISSED` (empty)
    once: read the log, rings are gone.
    """

    def __init__(self, bell: Doorbell, channels: tuple[str, ...]) -> None:
        self._bell = bell
        self.channels = channels
        self._messages: deque[bytes] = deque()
        self._rung = asyncio.Event()

    def ring(self, message: bytes) -> None:
        """Give a message to the waiter; called by the doorbell."""
        if len(self._messages) >= BACKLOG_MAX:
            self._messages.clear()
            message = MISSED
        self._messages.append(message)
        self._rung.set()

    async def next(self, timeout_s: float) -> bytes | None:
        """The next message, `MISSED` (empty) when some may have been lost, None after `timeout_s` seconds."""
        if not self._messages:
            self._rung.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._rung.wait()
            except TimeoutError:
                return None
        return self._messages.popleft()

    async def __aenter__(self) -> Listener:
        await self._bell.add(self)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._bell.remove(self)


class Doorbell:
    """The subscription. Use as an async context manager around everything that listens."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._pubsub: Any = None
        self._listeners: dict[str, set[Listener]] = {}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Doorbell:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def listen(self, *channels: str) -> Listener:
        """A listener on these channels; rings are kept from the moment it is entered."""
        return Listener(self, channels)

    async def add(self, listener: Listener) -> None:
        """Subscribe for a listener, and wait for Redis to say so: what rings afterwards is not missed.

        A Redis that is away just now is tried again in the background; the caller goes on after CONFIRM_S.
        """
        fresh = [channel for channel in listener.channels if channel not in self._listeners]
        for channel in listener.channels:
            self._listeners.setdefault(channel, set()).add(listener)
            self._confirmed.setdefault(channel, asyncio.Event())
        confirmations = [self._confirmed[channel] for channel in listener.channels]
        self._wanted.set()
        if fresh and self._pubsub is not None:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                await self._pubsub.subscribe(*fresh)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONFIRM_S):
                for confirmation in confirmations:
                    await confirmation.wait()

    async def remove(self, listener: Listener) -> None:
        """Unsubscribe what nobody listens to any more."""
        stale = []
        for channel in listener.channels:
            listeners = self._listeners.get(channel, set())
            listeners.discard(listener)
            if not listeners:
                self._listeners.pop(channel, None)
                self._confirmed.pop(channel, None)
                stale.append(channel)
        if stale and self._pubsub is not None:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                await self._pubsub.unsubscribe(*stale)

    async def _run(self) -> None:
        """Hold the connection for as long as the process listens; make it again when it is lost."""
        await self._wanted.wait()
        delay, lost = RECONNECT_S_MIN, False
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    asked: set[str] = set()
                    while fresh := set(self._listeners) - asked:  # more may come while this waits
                        await pubsub.subscribe(*fresh)
                        asked |= fresh
                    self._pubsub = pubsub
                    if lost:
                        self._ring_everybody()
                    while True:
                        message = await pubsub.get_message(timeout=READ_S)
                        delay = RECONNECT_S_MIN
                        if message is not None:
                            self._deliver(message)
            except (redis.exceptions.RedisError, OSError):
                self._pubsub, lost = None, True
                await asyncio.sleep(delay)
                delay = min(delay * 2, RECONNECT_S_MAX)

    def _deliver(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode() if isinstance(message["channel"], bytes) else message["channel"]
        if message["type"] == "subscribe" and channel in self._confirmed:
            self._confirmed[channel].set()
        elif message["type"] == "message":
            for listener in list(self._listeners.get(channel, ())):
                listener.ring(message["data"])

    def _ring_everybody(self) -> None:
        for listeners in list(self._listeners.values()):
            for listener in list(listeners):
                listener.ring(MISSED)
