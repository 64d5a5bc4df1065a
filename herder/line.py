"""Where calls of Redis wait for one of a few lanes to it: those that wait together share a round trip.

Knows connections and replies; not what is asked, nor what a script is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio
import redis.exceptions
from hiredis import pack_command

from herder.errors import Overloaded, RedisUnavailable

LANES = 2  # round trips under way at a time: while one's replies are read, Redis works on the other
TOGETHER_MAX = 64  # calls in a round trip
TOGETHER_CHARS_MAX = 1_000_000  # and the length of what they say, past which no other joins them
WAITING_MAX = 100_000
WAIT_S = 20.0
RESTED_S = 0.1  # a connection that was not used for so long is looked at first: its server may have hung up


def translated(error: redis.exceptions.RedisError) -> Exception:
    """What a Redis error means to a caller of the broker."""
    if isinstance(error, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)):
        unavailable = RedisUnavailable("Redis cannot be reached", retry_after=1)
        unavailable.why = str(error)  # it names an address inside
        return unavailable
    text = str(error)
    if text.startswith(("LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED", "BUSY")):
        return RedisUnavailable(f"Redis is not ready: {text}", retry_after=1)
    if "OOM command not allowed" in text:  # a script says first which it is
        return Overloaded("Redis is out of memory; try again later", retry_after=10)
    return error


Words = tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """As Redis reads it: its name, and what follows.

    Those `together` that have the same head go as one, the head once and then the rest of each; the reply is a list
    of theirs, in this order.
    """

    head: Words
    rest: Words = ()
    together: bool = False


_packed: Callable[[Words], bytes] = pack_command  # type: ignore[assignment]  # its stub knows but one word


@dataclass(frozen=True, slots=True, eq=False)
class _Calls:
    """Commands that somebody waits for, and the future list of replies or one error."""

    commands: Sequence[Command]
    replies: asyncio.Future[list[Any] | Exception]
    since: float


class Line:
    """Where commands wait for one of a few lanes to Redis. Those that wait together share a round trip.

    So a rush costs one write, one read, and at Redis one flush to disk, for many; a lone call goes at once. Whoever
    gives up waiting here is not sent; what has been sent is done, whether or not anybody waits for the reply.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._pool = client.connection_pool
        self._waiting: deque[_Calls] = deque()
        self._lanes = 0
        self._kept: list[tuple[Any, float]] = []  # connections, and since when they rest
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, in order; one that is an error of Redis is among them. Raises RedisUnavailable."""
        loop = asyncio.get_running_loop()
        if len(self._waiting) >= WAITING_MAX:
            raise RedisUnavailable(f"{WAITING_MAX} calls wait for Redis already", retry_after=1)
        calls = _Calls(commands, loop.create_future(), loop.time())
        self._waiting.append(calls)
        if self._lanes < LANES:
            self._lanes += 1
            task = loop.create_task(self._serve())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif self._watch is None:
            self._watch = loop.call_later(WAIT_S, self._give_up)
        replies = await calls.replies
        if isinstance(replies, Exception):
            raise replies
        return replies

    async def close(self) -> None:
        """End what is under way; whoever still waits is told so."""
        if self._watch is not None:
            self._watch.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._kept:
            await self._pool.release(self._kept.pop()[0])
        _answer(self._waiting, RedisUnavailable("this connection to Redis is closed", retry_after=1))

    async def _serve(self) -> None:
        """One lane: a round trip after the other while somebody waits, on a connection that it keeps for the next."""
        connection: Any = None
        some: list[_Calls] = []
        try:
            while some := self._next():
                try:
                    if connection is None:
                        connection = await self._connection()
                    replies = await _round_trip(
                        connection, [each for calls in some for each in calls.commands]
                    )
                except redis.exceptions.RedisError as error:
                    _answer(some, translated(error))
                    if connection is not None:  # it is made whole again before it is used
                        self._kept.append((connection, 0.0))
                        connection = None
                    continue
                for calls in some:
                    mine, replies = replies[: len(calls.commands)], replies[len(calls.commands) :]
                    if not calls.replies.done():
                        calls.replies.set_result(mine)
        finally:
            self._lanes -= 1
            _answer(some, RedisUnavailable("the call to Redis was broken off", retry_after=1))
            if connection is not None:
                if some:  # broken off: replies may still come, which are nobody else's
                    await connection.disconnect(nowait=True)
                self._kept.append((connection, 0.0 if some else asyncio.get_running_loop().time()))

    async def _connection(self) -> Any:
        """One that is ready: kept from an earlier lane, else the pool's. RedisError: there is none."""
        if not self._kept:
            return await self._pool.get_connection()
        connection, since = self._kept.pop()
        if asyncio.get_running_loop().time() - since > RESTED_S:
            try:
                await self._pool.ensure_connection(connection)
            except BaseException:
                await self._pool.release(connection)
                raise
        return connection

    def _next(self) -> list[_Calls]:
        """Who goes together next: from the head of the line, up to the limits of a round trip."""
        some: list[_Calls] = []
        room, length = TOGETHER_MAX, 0
        while self._waiting and room > 0 and length < TOGETHER_CHARS_MAX:
            calls = self._waiting.popleft()
            if calls.replies.done():
                continue
            some.append(calls)
            room -= len(calls.commands)
            length += sum(len(word) for command in calls.commands for word in command.rest)
        return some

    def _give_up(self) -> None:
        """Tell those that have waited too long; Redis hangs."""
        loop = asyncio.get_running_loop()
        self._watch = None
        late = loop.time() - WAIT_S
        while self._waiting and self._waiting[0].since <= late:
            _answer([self._waiting.popleft()], RedisUnavailable("Redis does not answer", retry_after=1))
        if self._waiting:
            self._watch = loop.call_at(self._waiting[0].since + WAIT_S, self._give_up)


async def _round_trip(connection: Any, commands: list[Command]) -> list[Any]:
    """The replies, errors of Redis among them. RedisError: the connection was lost, and is closed."""
    groups: dict[Words | int, list[int]] = {}
    for i, command in enumerate(commands):
        groups.setdefault(command.head if command.together else i, []).append(i)
    packed = [
        _packed(commands[members[0]].head + tuple(word for i in members for word in commands[i].rest))
        for members in groups.values()
    ]
    await connection.send_packed_command(b"".join(packed))
    replies: list[Any] = [None] * len(commands)
    for members in groups.values():
        try:
            reply = await connection.read_response()
        except redis.exceptions.ResponseError as error:
            reply = [error] * len(members)
        else:
            reply = reply if commands[members[0]].together else [reply]
        for i, each in zip(members, reply, strict=True):
            replies[i] = each
    return replies


def _answer(some: Iterable[_Calls], error: Exception) -> None:
    for calls in some:
        if not calls.replies.done():
            calls.replies.set_result(error)
