"""Requests a second of our `POST /v1/jobs`, of a bare FastAPI echo, and of LiteLLM's proxy with a fake backend.

Each server is one process with one event loop (uvloop, httptools); the callers are the same few lines for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httptools
import httpx

from benchmarks.peers import environment
from benchmarks.streams import herder, payer
from herder.broker import connect
from herder.embedded import EmbeddedRedis
from herder.ports import free_port
from herder.settings import Settings

CALLERS = 32
READY_S = 180.0
KEY = "sk-bench"
PROMPT = "Name a river, and say where it ends."
CONFIG = {
    "model_list": [
        {
            "model_name": "fake",
            "litellm_params": {
                "model": "openai/fake",
                "api_key": "none",
                "mock_response": "The Rhine; the North Sea.",
            },
        }
    ],
    "general_settings": {"master_key": KEY},
}


@dataclass(frozen=True)
class Target:
    """What is asked of whom."""

    port: int
    path: str
    key: str
    body: dict[str, object]

    @property
    def request(self) -> bytes:
        """The whole of it."""
        body = json.dumps(self.body).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
        return (
            head + f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body


class _Caller(asyncio.Protocol):
    """Asks, and once it has the answer asks again, on one connection, until the time is over."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self.answered = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Listen."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """For the parser."""
        status = self._parser.get_status_code()
        assert status in (200, 202), status
        self.answered += 1
        if time.monotonic() < self._until:
            asyncio.get_running_loop().call_soon(self._ask)
        else:
            self.over.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Too soon is a fault."""
        if not self.over.done():
            self.over.set_exception(exc or ConnectionError("the server hung up"))


async def rate(target: Target, seconds: float) -> float:
    """Requests answered a second by this target, asked by CALLERS at once."""
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(CALLERS):
        _, caller = await loop.create_connection(
            lambda: _Caller(target.request, began + seconds), "127.0.0.1", target.port
        )
        callers.append(caller)
    await asyncio.gather(*(caller.over for caller in callers))
    return sum(caller.answered for caller in callers) / (time.monotonic() - began)


@contextlib.asynccontextmanager
async def ours() -> AsyncIterator[Target]:
    """A herder on a Redis with a herd's durability, and a job that waits: nobody works on them."""
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as folder:
        redis = EmbeddedRedis(Path(folder))
        url = await redis.start()
        try:
            broker = await connect(Settings(redis_url=url))
            key = await payer(broker)
            await broker.close()
            port = free_port("127.0.0.1")
            process = await herder(url, port)
            try:
                yield Target(port, "/v1/jobs", key, {"prompt": PROMPT, "tokens": 20, "raw": True})
            finally:
                process.terminate()
                await process.wait()
        finally:
            await redis.stop()


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[Target]:
    """The same fields, read and written by FastAPI."""
    port = free_port("127.0.0.1")
    async with _process(port, sys.executable, "-m", "benchmarks.echo", str(port)):
        yield Target(port, "/", "none", {"prompt": PROMPT, "tokens": 20, "raw": True})


@contextlib.asynccontextmanager
async def litellm() -> AsyncIterator[Target]:
    """The proxy with one worker, a master key, and a model that answers at once with a fixed text."""
    port = free_port("127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="litellm-") as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(CONFIG), "utf-8")
        program = environment("litellm").with_name("litellm")
        command = (str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port))
        async with _process(port, *command, "--num_workers", "1", "--telemetry", "False"):
            messages = [{"role": "user", "content": PROMPT}]
            yield Target(
                port, "/v1/chat/completions", KEY, {"model": "fake", "messages": messages, "max_tokens": 20}
            )


@contextlib.asynccontextmanager
async def _process(port: int, *command: str) -> AsyncIterator[None]:
    """A server's process, once it answers anything at all."""
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "*"}
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | quiet, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(READY_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await client.get(f"http://127.0.0.1:{port}/")
                    break
                assert process.returncode is None, f"{command[0]} did not start"
                await asyncio.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
