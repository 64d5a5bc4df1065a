"""One Redis subscription for a process, many waiters. A ring may be lost: whoever waits reads the log as well.

Knows nothing of what the messages mean. A lost connection is made again with back-off. From the moment that `add`
returned, a waiter gets every message of its channels in order; where some may have been lost, it gets `MISSED` in
their place, and only after the subscription is whole again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from typing import Any, Protocol

import redis.asyncio
import redis.exceptions

BACKLOG_MAX = 1_024
RECONNECT_S_MIN = 0.05
RECONNECT_S_MAX = 2.0
CONFIRM_S = 1.0
PING_S = 5.0  # a server that has said nothing for two of these is gone
ASK_MAX = 1_000  # channels in one command
MISSED = b""


class Ear(Protocol):
    """What a doorbell rings: its channels never change, and `ring` neither waits nor fails."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that it listens to."""
        ...

    def ring(self, message: bytes) -> None:
        """Take one message."""
        ...


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
        self._bell.remove(self)


class _Channel:
    """Who listens, whether Redis has confirmed it, and whether messages may have been lost before it did."""

    def __init__(self) -> None:
        self.ears: set[Ear] = set()
        self.confirmed = asyncio.Event()
        self.missed = False


class Doorbell:
    """The subscription. Use as an async context manager around everything that listens."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._channels: dict[bytes, _Channel] = {}
        self._fresh: set[bytes] = set()  # to be subscribed
        self._idle: set[bytes] = set()  # to be looked at, and unsubscribed where nobody came back
        self._unconfirmed: Counter[bytes] = Counter()  # SUBSCRIBEs that Redis has not answered yet
        self._changed = asyncio.Event()
        self._heard = False
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

    async def add(self, ear: Ear) -> None:
        """Subscribe for an ear, and wait for Redis to say so: what rings afterwards is not missed.

        A Redis that is away just now is tried again in the background; the caller goes on after CONFIRM_S, and its
        ear is rung with `MISSED` once Redis has confirmed.
        """
        channels = [self._channel(name.encode()) for name in ear.channels]
        for channel in channels:
            channel.ears.add(ear)
        try:
            async with asyncio.timeout(CONFIRM_S):
                for channel in channels:
                    await channel.confirmed.wait()
        except TimeoutError:
            for channel in channels:
                channel.missed = channel.missed or not channel.confirmed.is_set()
        except BaseException:
            self.remove(ear)
            raise

    def remove(self, ear: Ear) -> None:
        """Forget an ear; what nobody listens to any more is unsubscribed in the background."""
        for name in map(str.encode, ear.channels):
            channel = self._channels.get(name)
            if channel is not None:
                channel.ears.discard(ear)
                if not channel.ears:
                    self._idle.add(name)
                    self._changed.set()

    def _channel(self, name: bytes) -> _Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
            self._fresh.add(name)
            self._changed.set()
        return channel

    # --- the connection ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Hold a connection for as long as the process listens; make it again when it is lost."""
        await self._changed.wait()
        delay = RECONNECT_S_MIN
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    await pubsub.connect()
                    asking = asyncio.create_task(self._ask(pubsub.connection))
                    try:
                        while True:
                            # Not get_message, which costs more than everything else that is done with a message.
                            self._deliver(await pubsub.connection.read_response(disconnect_on_error=False))
                            delay = RECONNECT_S_MIN
                    finally:
                        asking.cancel()
                        await asyncio.gather(asking, return_exceptions=True)
                        self._lost()
            except (redis.exceptions.RedisError, OSError):
                await asyncio.sleep(delay)
                delay = min(delay * 2, RECONNECT_S_MAX)

    async def _ask(self, connection: Any) -> None:
        """Keep Redis's subscriptions what the ears want, many in one command, and see that Redis is still there.

        Ends the connection where it is not; whoever reads from it learns it so.
        """
        loop = asyncio.get_running_loop()
        self._heard, next_ping = True, loop.time() + PING_S
        try:
            while True:
                await self._reconcile(connection)
                self._changed.clear()
                try:
                    async with asyncio.timeout_at(next_ping):
                        await self._changed.wait()
                except TimeoutError:
                    if not self._heard:
                        break
                    self._heard, next_ping = False, loop.time() + PING_S
                    await connection.send_command("PING", check_health=False)
        except (redis.exceptions.RedisError, OSError):
            pass
        await connection.disconnect(nowait=True)

    async def _reconcile(self, connection: Any) -> None:
        """What came and went while this waits is seen to as well; the order on the wire is that of the changes."""
        while self._fresh or self._idle:
            stale = [name for name in self._taken(self._idle) if not self._channels[name].ears]
            for name in stale:
                del self._channels[name]
            known = [name for name in stale if name not in self._fresh]
            self._fresh.difference_update(stale)
            fresh = self._taken(self._fresh)
            self._unconfirmed.update(fresh)
            if known:
                await connection.send_command("UNSUBSCRIBE", *known, check_health=False)
            if fresh:
                await connection.send_command("SUBSCRIBE", *fresh, check_health=False)

    @staticmethod
    def _taken(names: set[bytes]) -> list[bytes]:
        """At most ASK_MAX of them, which then are in there no more."""
        return [names.pop() for _ in range(min(len(names), ASK_MAX))]

    def _lost(self) -> None:
        """Nothing is subscribed any more, and whoever listens is to be told once it is again."""
        self._fresh = set(self._channels)
        self._unconfirmed.clear()
        self._changed.set()
        for channel in self._channels.values():
            channel.confirmed.clear()
            channel.missed = True

    def _deliver(self, reply: Any) -> None:
        self._heard = True
        if reply[0] == b"message":
            channel = self._channels.get(reply[1])
            if channel is not None:
                for ear in tuple(channel.ears):
                    ear.ring(reply[2])
        elif reply[0] == b"subscribe":
            self._confirm(reply[1])

    def _confirm(self, name: bytes) -> None:
        """The answer to one SUBSCRIBE; where it was taken back and asked for again, only the last one counts."""
        self._unconfirmed[name] -= 1
        if self._unconfirmed[name] > 0:
            return
        del self._unconfirmed[name]
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.confirmed.set()
        if channel.missed:
            channel.missed = False
            for ear in tuple(channel.ears):
                ear.ring(MISSED)
