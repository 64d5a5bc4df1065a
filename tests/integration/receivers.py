"""Receivers of webhooks on loopback: plain sockets, so that they can misbehave in any way."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_network

from herder.egress import Policy

LOOPBACK = Policy(
    allow_networks=(ip_network("127.0.0.0/8"),), allow_hosts=frozenset({"localhost"}), ports=None
)
Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """A server on loopback: what was asked of it, and a task for each connection, done when the sender is gone."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    served: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=t"


@contextlib.asynccontextmanager
async def receiver(
    act: Act | bytes, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """A receiver that reads one POST and acts, or replies, and then waits for the sender to close the connection."""
    found = Receiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        found.served.append(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            found.heads.append(head)
            found.bodies.append(await reader.readexactly(int(length.split(b":")[1])))
            if isinstance(act, bytes):
                writer.write(act)
            else:
                await act(reader, writer)
            while await reader.read(65_536):
                pass
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
        await asyncio.wait_for(asyncio.gather(*found.served), 10)
    finally:
        server.close()
        await server.wait_closed()


def reply(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "", ""]).encode()
