"""Loads `lua/`, puts the prelude in front of each script, and calls them. Knows Redis, not what the scripts mean."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis.asyncio
import redis.exceptions
from pydantic_core import to_json

from herder.clock import Clock
from herder.keys import lua_key_functions
from herder.line import Command, Line, translated

_FOLDER = files("herder") / "lua"
# ARGV: 1 key prefix, 2 simulated time in ms or '', then of each call 3 named arguments as JSON, 4 a text.
_HEAD = "local PREFIX, OVERRIDE = ARGV[1], ARGV[2]\nlocal A, TEXT\n"
_BEGIN = "local function transition(i)\nA, TEXT = cjson.decode(ARGV[i]), ARGV[i + 1]\n"
# A call that fails keeps no other from being made. Alone it fails as a script does.
_EACH = """
local replies = {}
for i = 3, #ARGV, 2 do
  if #ARGV == 4 then return { transition(i) or false } end
  local done, reply = pcall(transition, i)
  if not done then reply = { err = type(reply) == 'table' and reply.err or tostring(reply) } end
  replies[#replies + 1] = reply or false
end
return replies
"""
_FUNCTION = re.compile(r"local function (\w+)\(.*(?:\n(?: .*)?)*\n?(?:^end\n)?", re.MULTILINE)


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
    body = (_FOLDER / f"{name}.lua").read_text("utf-8")
    rest = _used(shared_source(), f"{_BEGIN}{body}end\n")
    keys = [line for line in lua_key_functions().splitlines(keepends=True) if _key_is_used(line, rest)]
    return _HEAD + "".join(keys) + rest + _EACH


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


class Scripts:
    """Calls a script by name with named arguments (JSON) and at most one stored text. None values are left out."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, clock: Clock) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock
        self._line = Line(client)
        self._sources = {name: script_source(name) for name in script_names()}
        self._digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._sources.items()
        }

    def _command(self, name: str, arguments: dict[str, Any], text: str | bytes) -> Command:
        override = self._clock.override_ms()
        named = to_json({name: value for name, value in arguments.items() if value is not None})
        time = "" if override is None else str(override)
        return Command(
            ("EVALSHA", self._digests[name], "0", self._prefix, time), (named, text), together=True
        )

    async def read(self, *command: str) -> Any:
        """The reply to a command that only reads, which shares a round trip with the scripts that wait with it."""
        (reply,) = await self._line.ask([Command(command)])
        if isinstance(reply, redis.exceptions.RedisError):
            raise translated(reply) from reply
        return reply

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
        return await self._line.ask([self._command(name, arguments, text) for arguments, text in calls])

    async def close(self) -> None:
        """Break off what is under way. The client is not ours to close."""
        await self._line.close()
