"""A child process that does one dangerous thing at a time: frames over pipes, a time limit, a fresh child after death.

What runs a stranger's template or native code runs there, so that a hang, a crash or a full memory costs one request
and not the herder. Knows nothing of what is asked: a module with a `main` that calls `answer` stands at the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import struct
import sys
from collections.abc import Callable
from typing import Any

FRAME_BYTES_MAX = 64 * 2**20
_HEAD = struct.Struct(">I")
_CLOSE_S = 2.0


class ChildFailed(Exception):
    """No answer: the child died, ran out of time or memory, or there was no turn within the waiting limit.

    `begun`: the child was running and had the question.
    """

    begun = False


class Child:
    """One child running `python -m module`, started at the first question; questions take turns.

    `limit_s` is the time for one answer, after which the child is killed; `turn_s` the longest wait for a turn;
    `start_s` the longest start.
    """

    def __init__(self, module: str, *, limit_s: float, turn_s: float = 10.0, start_s: float = 30.0) -> None:
        self._module = module
        self._limit_s = limit_s
        self._turn_s = turn_s
        self._start_s = start_s
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self.starts = 0

    async def ask(self, question: dict[str, Any], *, limit_s: float | None = None) -> dict[str, Any]:
        """The child's answer. Raises ChildFailed."""
        try:
            await asyncio.wait_for(self._turn.acquire(), self._turn_s)
        except TimeoutError:
            raise ChildFailed(f"no turn within {self._turn_s:g} s") from None
        begun = False
        try:
            process = await self._running()
            begun = True
            async with asyncio.timeout(limit_s or self._limit_s):
                return await _exchange(process, question)
        except (TimeoutError, OSError, EOFError, ValueError, asyncio.IncompleteReadError) as error:
            await self._end()
            failed = ChildFailed(f"{self._module}: {type(error).__name__} {error}".strip())
            failed.begun = begun
            raise failed from error
        except asyncio.CancelledError:
            # Half an answer may be on its way; the next question must not read it.
            self._drop()
            raise
        finally:
            self._turn.release()

    async def close(self) -> None:
        """End the child."""
        await self._end()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._end()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self.starts += 1
        async with asyncio.timeout(self._start_s):
            await _exchange(self._process, {"op": "hello"})
        return self._process

    def _drop(self) -> asyncio.subprocess.Process | None:
        """Kill the child and close its pipes; the event loop reaps it."""
        process, self._process = self._process, None
        if process is not None:
            process._transport.close()  # type: ignore[attr-defined]
        return process

    async def _end(self) -> None:
        process = self._drop()
        if process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _CLOSE_S)


async def _exchange(process: asyncio.subprocess.Process, question: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(_frame(question))
    await process.stdin.drain()
    (length,) = _HEAD.unpack(await process.stdout.readexactly(_HEAD.size))
    if length > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {length} bytes")
    answer = json.loads(await process.stdout.readexactly(length))
    assert isinstance(answer, dict)
    return answer


def _frame(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return _HEAD.pack(len(body)) + body


def answer(handle: Callable[[dict[str, Any]], dict[str, Any]], *, memory_bytes: int) -> None:
    """The child's side: answer frames from stdin on stdout until stdin ends. Memory is capped from the start.

    `hello` is answered here; an exception of `handle` becomes `{"error": …}`.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    while head := source.read(_HEAD.size):
        question = json.loads(source.read(_HEAD.unpack(head)[0]))
        try:
            reply = {} if question["op"] == "hello" else handle(question)
        except MemoryError:
            reply = {"error": "out of memory"}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        sink.write(_frame(reply))
        sink.flush()
