"""Loads `lua/`, puts the prelude in front of each script, and calls them. Knows Redis, not what the scripts mean."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

import redis.asyncio
import redis.exceptions

from herder.clock import Clock
from herder.errors import Overloaded, RedisUnavailable
from herder.keys import lua_key_functions

_FOLDER = files("herder") / "lua"
_FUNCTION = re.compile(r"local function (\w+)\(.*(?:\n(?: .*)?)*\n?(?:^end\n)?", re.MULTILINE)
LANES = 2  # round trips under way at a time: while one's replies are read, Redis works on the other
TOGETHER_MAX = 64  # calls in a round trip
TOGETHER_CHARS_MAX = 1_000_000  # and the length of their texts, past which no other joins them
WAITING_MAX = 100_000
WAIT_S = 20.0


def script_names() -> list[str]:
    """Every transition there is: the file names of `lua/` without the prelude."""
    names = (entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".lua"))
    return sorted(name.removesuffix(".lua") for name in names if not name.startswith("_"))


def shared_source() -> str:
    """What stands in front of every script: the prelude, and then what some of them share."""
    names = sorted(entry.name for entry in _FOLDER.iterdir() if re.fullmatch(r"_\w+\.lua", entry.name))
    return "".join((_FOLDER / name).read_text("utf-8") for name in names)


def script_source(name: str) -> str:
    """One complete script: arguments, key functions, prelude, body.

    Functions that it does not use are left out: Redis makes each anew in every call, and clears it away after.
    """
    head = "local PREFIX, OVERRIDE = ARGV[1], ARGV[2]\nlocal A = cjson.decode(ARGV[3])\n"
    rest = _used(shared_source(), (_FOLDER / f"{name}.lua").read_text("utf-8"))
    keys = [line for line in lua_key_functions().splitlines(keepends=True) if _key_is_used(line, rest)]
    return head + "".join(keys) + rest


def _used(shared: str, body: str) -> str:
    """The body behind what it needs of the shared source, whose functions each begin and end at the left margin."""
    kept = body
    for part in reversed(re.split(r"^(?=local function )", shared, flags=re.MULTILINE)):
        function = _FUNCTION.match(part)
        # A function uses only those in front of it.
        rest = part[function.end() :] + kept if function is not None else ""
        unused = function is not None and not re.search(rf"\b{function[1]}\b", rest)
        kept = rest if unused else part + kept
    return kept


def _key_is_used(line: str, source: str) -> bool:
    function = re.match(r"function (K\.\w+)\(", line)
    return function is None or function[1] + "(" in source


def translated(error: redis.exceptions.RedisError) -> Exception:
    """What a Redis error means to a caller of the broker."""
    if isinstance(error, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)):
        return RedisUnavailable(f"Redis cannot be reached: {error}", retry_after=1)
    text = str(error)
    if text.startswith(("LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED", "BUSY")):
        return RedisUnavailable(f"Redis is not ready: {text}", retry_after=1)
    if "OOM" in text[:40]:
        return Overloaded("Redis is out of memory; try again later", retry_after=10)
    return error


@dataclass(frozen=True)
class _Calls:
    """Calls of one script that somebody waits for: their arguments, and the future list of replies or one error."""

    digest: str
    argvs: list[tuple[str | bytes, ...]]
    replies: asyncio.Future[list[Any] | Exception]
    since: float


class _Line:
    """Where calls wait for one of a few lanes to Redis. Those that wait together share a round trip.

    So a rush costs one write, one read, and at Redis one flush to disk, for many; a lone call goes at once. Whoever
    gives up waiting here is not sent; what has been sent is done, whether or not anybody waits for the reply.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiting: deque[_Calls] = deque()
        self._lanes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None

    async def ask(self, digest: str, argvs: list[tuple[str | bytes, ...]]) -> list[Any]:
        """The replies, in order; one that is an error of Redis is among them. Raises RedisUnavailable."""
        loop = asyncio.get_running_loop()
        if len(self._waiting) >= WAITING_MAX:
            raise RedisUnavailable(f"{WAITING_MAX} calls wait for Redis already", retry_after=1)
        calls = _Calls(digest, argvs, loop.create_future(), loop.time())
        self._waiting.append(calls)
        if self._lanes < LANES:
            self._lanes += 1
            task = loop.create_task(self._send())
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
        _answer(self._waiting, RedisUnavailable("this connection to Redis is closed", retry_after=1))

    async def _send(self) -> None:
        """One lane: a round trip after the other while somebody waits."""
        some: list[_Calls] = []
        try:
            while some := self._next():
                try:
                    replies = await self._round_trip(
                        [(calls.digest, argv) for calls in some for argv in calls.argvs]
                    )
                except redis.exceptions.RedisError as error:
                    _answer(some, translated(error))
                    continue
                for calls in some:
                    mine, replies = replies[: len(calls.argvs)], replies[len(calls.argvs) :]
                    if not calls.replies.done():
                        calls.replies.set_result(mine)
        finally:
            self._lanes -= 1
            _answer(some, RedisUnavailable("the call to Redis was broken off", retry_after=1))

    def _next(self) -> list[_Calls]:
        """Who goes together next: from the head of the line, up to the limits of a round trip."""
        some: list[_Calls] = []
        room, length = TOGETHER_MAX, 0
        while self._waiting and room > 0 and length < TOGETHER_CHARS_MAX:
            calls = self._waiting.popleft()
            if calls.replies.done():
                continue
            some.append(calls)
            room -= len(calls.argvs)
            length += sum(len(argv[-1]) for argv in calls.argvs)
        return some

    async def _round_trip(self, commands: list[tuple[str, tuple[str | bytes, ...]]]) -> list[Any]:
        if len(commands) == 1:
            ((digest, argv),) = commands
            try:
                return [
                    await cast(
                        "Awaitable[Any]", self._client.evalsha(digest, 0, *cast("tuple[str, ...]", argv))
                    )
                ]
            except redis.exceptions.ResponseError as error:
                return [error]
        pipe = self._client.pipeline(transaction=False)
        for digest, argv in commands:
            pipe.evalsha(digest, 0, *cast("tuple[str, ...]", argv))
        return list(await pipe.execute(raise_on_error=False))

    def _give_up(self) -> None:
        """Tell those that have waited too long; Redis hangs."""
        loop = asyncio.get_running_loop()
        self._watch = None
        late = loop.time() - WAIT_S
        while self._waiting and self._waiting[0].since <= late:
            _answer([self._waiting.popleft()], RedisUnavailable("Redis does not answer", retry_after=1))
        if self._waiting:
            self._watch = loop.call_at(self._waiting[0].since + WAIT_S, self._give_up)


def _answer(some: Iterable[_Calls], error: Exception) -> None:
    for calls in some:
        if not calls.replies.done():
            calls.replies.set_result(error)


class Scripts:
    """Calls a script by name with named arguments (JSON) and at most one stored text. None values are left out."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, clock: Clock) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock
        self._line = _Line(client)
        self._sources = {name: script_source(name) for name in script_names()}
        self._digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._sources.items()
        }

    def _argv(self, arguments: dict[str, Any], text: str | bytes) -> tuple[str | bytes, ...]:
        override = self._clock.override_ms()
        named = json.dumps({k: v for k, v in arguments.items() if v is not None}, ensure_ascii=False)
        return (self._prefix, "" if override is None else str(override), named, text)

    async def call(self, name: str, arguments: dict[str, Any], text: str | bytes = "") -> Any:
        """Run one script; raises RedisUnavailable, Overloaded, or what Redis said."""
        (reply,) = await self.pipeline(name, [(arguments, text)])
        return reply

    async def pipeline(self, name: str, calls: Sequence[tuple[dict[str, Any], str | bytes]]) -> list[Any]:
        """Run one script several times in one round trip; the first error of any is raised."""
        replies = await self._send(name, calls)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if missing:  # a restarted Redis has forgotten the scripts
            await self._load(name)
            again = await self._send(name, [calls[i] for i in missing])
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, redis.exceptions.RedisError):
                raise translated(reply) from reply
        return replies

    async def _load(self, name: str) -> None:
        try:
            await self._client.script_load(self._sources[name])
        except redis.exceptions.RedisError as error:
            raise translated(error) from error

    async def _send(self, name: str, calls: Sequence[tuple[dict[str, Any], str | bytes]]) -> list[Any]:
        argvs = [self._argv(arguments, text) for arguments, text in calls]
        return await self._line.ask(self._digests[name], argvs)

    async def close(self) -> None:
        """Break off what is under way. The client is not ours to close."""
        await self._line.close()
