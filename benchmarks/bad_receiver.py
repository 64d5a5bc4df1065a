"""A receiver of webhooks in a process of its own that answers 500, too late, with a redirect, or not at all, by turns.

`python -m benchmarks.bad_receiver [good]` prints its port and listens until it is killed; `good` answers 204 at once.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count

HANG_S = 600.0
LATE_S = 1.0
_turns = count()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        await _say(writer, "204 No Content" if "good" in sys.argv else None)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def _say(writer: asyncio.StreamWriter, status: str | None) -> None:
    kinds = ("500 Internal Server Error", "200 OK", "302 Found\r\nlocation: /x", "")
    turn = next(_turns) % len(kinds)
    if status is None:
        status = kinds[turn]
        if not status or turn == 1:
            await asyncio.sleep(LATE_S if status else HANG_S)
    writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
    await writer.drain()


async def main() -> None:
    """Listen on a free port of loopback."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
