"""A small chat room over WebSocket, for the examples that talk in one: `chatbot.py` and `sentiment_agent.py`.

    python examples/room.py --port 8765

Whoever connects sends `{"name": "ann", "text": "hello"}` and gets every message of the room as
`{"id": 1795251615198, "name": "ann", "text": "hello"}`: first those it has missed, those after `?after=ID` of the
address (none without it), then each as it comes. `python examples/room.py --join ann` is such a one.

Needs `pip install '.[examples]'`. The room is open to everybody who reaches its port: it listens on this
machine alone, and keeps the last thousand messages in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

KEPT_MAX = 1_000
MESSAGE_BYTES_MAX = 10_000
GUESTS_MAX = 100
UNREAD_MAX = 2 * KEPT_MAX


@dataclass(frozen=True)
class Said:
    """One message of the room. Its id is its time in milliseconds, and larger than all before: a guest that remembers
    what it has read last misses nothing when the room is opened again."""

    id: int
    name: str
    text: str


def said_of(text: str | bytes) -> Said:
    """A message as the room sends it."""
    return Said(**json.loads(text))


class Room:
    """What was said, and who is there to hear what is said next."""

    def __init__(self) -> None:
        self._said: deque[Said] = deque(maxlen=KEPT_MAX)
        self._last = 0
        self._guests: set[asyncio.Queue[Said]] = set()

    def say(self, name: str, text: str) -> None:
        """To everybody; a guest who does not read for too long misses the oldest."""
        self._last = max(self._last + 1, time.time_ns() // 1_000_000)
        message = Said(self._last, name, text)
        self._said.append(message)
        for unread in self._guests:
            if unread.full():
                unread.get_nowait()
            unread.put_nowait(message)

    async def guest(self, line: ServerConnection) -> None:
        """One connection, until it ends."""
        if len(self._guests) >= GUESTS_MAX:
            return await line.close(1013, "the room is full")
        unread: asyncio.Queue[Said] = asyncio.Queue(UNREAD_MAX)
        for message in self._missed(line.request.path if line.request else ""):
            unread.put_nowait(message)
        self._guests.add(unread)
        telling = asyncio.create_task(self._tell(line, unread))
        try:
            async for sent in line:
                self._heard(sent)
        except ConnectionClosed:
            pass
        except ValueError as error:
            await line.close(1007, str(error))
        finally:
            self._guests.discard(unread)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    def _missed(self, path: str) -> list[Said]:
        after = parse_qs(urlsplit(path).query).get("after", [""])[0]
        return [message for message in self._said if after.isdecimal() and message.id > int(after)]

    def _heard(self, sent: str | bytes) -> None:
        """Raises ValueError for what is no message."""
        found = json.loads(sent)
        name, text = (found.get("name"), found.get("text")) if isinstance(found, dict) else (None, None)
        if not (isinstance(name, str) and name and isinstance(text, str)):
            raise ValueError('a message is {"name": "ann", "text": "hello"}')
        self.say(name[:50], text)

    @staticmethod
    async def _tell(line: ServerConnection, unread: asyncio.Queue[Said]) -> None:
        while True:
            await line.send(json.dumps(asdict(await unread.get()), ensure_ascii=False))


@asynccontextmanager
async def opened(host: str = "127.0.0.1", port: int = 8765) -> AsyncIterator[Server]:
    """A room that is open; port 0 takes a free one."""
    async with serve(Room().guest, host, port, max_size=MESSAGE_BYTES_MAX) as server:
        yield server


async def say(line: ClientConnection, name: str, text: str) -> None:
    """Say something, as a guest; what is too long for the room is cut."""
    while len(sent := json.dumps({"name": name, "text": text}, ensure_ascii=False)) > MESSAGE_BYTES_MAX // 4:
        text = text[: len(text) // 2]
    await line.send(sent)


async def _serve(host: str, port: int) -> None:
    async with opened(host, port) as server:
        bound = next(iter(server.sockets)).getsockname()[1]
        print(f"the room is open: ws://{host}:{bound}", flush=True)
        await server.serve_forever()


async def _join(url: str, name: str) -> None:
    async with connect(f"{url}?after=0") as line:

        async def shown() -> None:
            async for message in line:
                said = said_of(message)
                print(f"{said.name}: {said.text}", flush=True)

        showing = asyncio.create_task(shown())
        try:
            while text := await asyncio.to_thread(sys.stdin.readline):
                await say(line, name, text.rstrip("\n"))
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)


def main() -> None:
    """Serve until Ctrl-C, or be a guest until the end of standard input."""
    parser = argparse.ArgumentParser(description="A chat room.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--join", metavar="NAME", help="do not serve: talk in the room that is there")
    asked = parser.parse_args()
    with suppress(KeyboardInterrupt):
        if asked.join:
            asyncio.run(_join(f"ws://{asked.host}:{asked.port}", asked.join))
        else:
            asyncio.run(_serve(asked.host, asked.port))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ConnectionClosed) as error:
        sys.exit(f"error: {error}")
