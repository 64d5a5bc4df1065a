"""Loads `lua/`, puts the prelude in front of each script, and calls them. Knows Redis, not what the scripts mean."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Sequence
from importlib.resources import files
from typing import Any, cast

import redis.asyncio
import redis.exceptions

from herder.clock import Clock
from herder.errors import Overloaded, RedisUnavailable
from herder.keys import lua_key_functions

_FOLDER = files("herder") / "lua"


def script_names() -> list[str]:
    """Every transition there is: the file names of `lua/` without the prelude."""
    names = (entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".lua"))
    return sorted(name.removesuffix(".lua") for name in names if not name.startswith("_"))


def shared_source() -> str:
    """What stands in front of every script: the prelude, and then what some of them share."""
    names = sorted(entry.name for entry in _FOLDER.iterdir() if re.fullmatch(r"_\w+\.lua", entry.name))
    return "".join((_FOLDER / name).read_text("utf-8") for name in names)


def script_source(name: str) -> str:
    """One complete script: arguments, key functions, prelude, body."""
    head = "local PREFIX, OVERRIDE = ARGV[1], ARGV[2]\nlocal A = cjson.decode(ARGV[3])\n"
    return head + lua_key_functions() + shared_source() + (_FOLDER / f"{name}.lua").read_text("utf-8")


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


class Scripts:
    """Calls a script by name with named arguments (JSON) and at most one stored text. None values are left out."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, clock: Clock) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock
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
        try:
            if len(calls) == 1:
                argv = self._argv(*calls[0])
                reply = self._client.evalsha(self._digests[name], 0, *cast("tuple[str, ...]", argv))
                return [await cast("Awaitable[Any]", reply)]
            pipe = self._client.pipeline(transaction=False)
            for arguments, text in calls:
                pipe.evalsha(self._digests[name], 0, *cast("tuple[str, ...]", self._argv(arguments, text)))
            return list(await pipe.execute(raise_on_error=False))
        except redis.exceptions.NoScriptError as error:
            return [error]
        except redis.exceptions.RedisError as error:
            raise translated(error) from error
