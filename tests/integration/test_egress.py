"""Webhooks over real sockets, all on loopback: receivers that answer, lie, hang, drip, flood and speak bad TLS."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from time import monotonic

import httpcore
import pytest

from herder.egress import Answer, Egress, GuardedBackend, Lookup, Policy, Refused
from tests.integration.receivers import LOOPBACK, Act, receiver, reply


async def post(url: str, timeout_s: float = 10, body: bytes = b'{"type":"job.completed"}') -> Answer:
    async with Egress(LOOPBACK) as egress:
        return await egress.post(url, body, {"webhook-id": "d1"}, timeout_s)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (reply("200 OK"), Answer(200)),
        (reply("204"), Answer(204)),
        (reply("500 Oops"), Answer(500)),
        (reply("410 Gone"), Answer(410)),
        (reply("302 Found", "Location: http://169.254.169.254/latest/meta-data"), Answer(302)),
        (reply("301 Moved", "Location: http://127.0.0.1:1/"), Answer(301)),
        (reply("503 Busy", "Retry-After: 120"), Answer(503, 120)),
        (reply("429 Slow", "retry-after:  999999"), Answer(429, 86_400)),
        (reply("429 Slow", "Retry-After: Fri, 15 Jan 1999 08:00:00 GMT"), Answer(429, 0)),
        (reply("503 Busy", "Retry-After: Fri, 15 Jan 2999 08:00:00 GMT"), Answer(503, 86_400)),
        (reply("503 Busy", "Retry-After: soon"), Answer(503)),
        (reply("200 OK", "Set-Cookie: a=b", "Connection: keep-alive"), Answer(200)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + reply("202 Accepted"), Answer(202)),
        (b"SSH-2.0-OpenSSH_9.2 secret\r\n\r\n", Answer(None, error="the answer is not HTTP")),
        (b"HTTP/1.1 999999 No\r\n\r\n", Answer(None, error="the answer is not HTTP")),
    ],
)
async def test_what_a_receiver_says_is_read(sent: bytes, answer: Answer) -> None:
    async with receiver(sent) as there:
        assert await post(there.url) == answer
        assert len(there.served) == 1
    assert there.heads[0].startswith(b"POST /hook?token=t HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{there.port}\r\n".encode() in there.heads[0].lower()
    assert b"python" not in there.heads[0].lower()
    assert b"cookie" not in there.heads[0].lower()
    assert there.bodies == [b'{"type":"job.completed"}']


async def test_every_post_has_its_own_connection_and_no_memory() -> None:
    async with receiver(reply("200 OK", "Set-Cookie: a=b", "Connection: keep-alive")) as there:
        async with Egress(LOOPBACK) as egress:
            answers = await asyncio.gather(*(egress.post(there.url, b"", {}, 10) for _ in range(50)))
        assert answers == [Answer(200)] * 50
        assert len(there.served) == 50
    assert not any(b"cookie" in head.lower() for head in there.heads)


async def gone_within(reader: asyncio.StreamReader, pause_s: float) -> bool:
    """Whether the sender closes the connection within a pause."""
    try:
        await asyncio.wait_for(reader.read(1), pause_s)
    except TimeoutError:
        return False
    return True


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A header without end, a byte now and then."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not await gone_within(reader, 0.01):
        writer.write(b"a")


async def hint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Interim responses without end."""
    while not await gone_within(reader, 0.001):
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")


@pytest.mark.parametrize("act", [hang, drip, hint])
async def test_a_receiver_that_takes_its_time_costs_the_limit_and_no_more(act: Act) -> None:
    async with receiver(act) as there:
        began = monotonic()
        assert await post(there.url, timeout_s=0.5) == Answer(None, error="timed out after 0.5 s")
        assert 0.4 <= monotonic() - began < 5


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_receiver_that_never_reads_costs_the_limit_and_leaves_no_socket(scheme: str) -> None:
    """Nobody accepts: the kernel connects, then a large body, or the handshake, gets no further."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/"
        assert (await post(url, 0.5, bytes(30_000_000))).error == "timed out after 0.5 s"
        listening.settimeout(10)
        accepted, _ = listening.accept()
        with accepted, contextlib.suppress(ConnectionResetError):
            accepted.settimeout(10)
            while accepted.recv(1 << 20):  # ends only where the sender has closed
                pass
    gc.collect()  # an unclosed socket is a warning, which is an error


async def test_a_cancelled_post_leaves_no_socket_and_is_cancelled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        task = asyncio.create_task(post(f"https://127.0.0.1:{listening.getsockname()[1]}/"))
        accepted, _ = await asyncio.to_thread(listening.accept)
        with accepted:
            accepted.settimeout(10)
            assert await asyncio.to_thread(accepted.recv, 65_536)  # in the middle of the handshake
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with contextlib.suppress(ConnectionResetError):
                assert accepted.recv(65_536) == b""
    gc.collect()


@pytest.mark.parametrize(
    ("start", "chunk", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b"x", Answer(200)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n", Answer(200)),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", b"x", Answer(200)),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x", Answer(None, error="the answer is not HTTP")),
        (b"", b"x", Answer(None, error="the answer is not HTTP")),
    ],
    ids=["length", "chunked", "to the end", "header", "status"],
)  # fmt: skip
async def test_an_answer_without_end_is_not_read(start: bytes, chunk: bytes, answer: Answer) -> None:
    written: list[int] = []

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(chunk if len(chunk) > 1 else chunk * 65_536)
            await writer.drain()
            written.append(65_536)

    async with receiver(flood) as there:
        assert await post(there.url) == answer
    assert sum(written) < 50_000_000  # what two kernels buffer, and no stream without end


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert await post(f"http://127.0.0.1:{port}/") == Answer(None, error="connection refused")


async def test_a_receiver_that_closes_at_once() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with receiver(close) as there:
        answer = await post(there.url)
    assert answer == Answer(None, error="the connection was closed without an answer")


# ------------------------------------------------------------------------------------------------ the policy


async def test_loopback_is_refused_unless_it_is_listed() -> None:
    async with receiver(reply("200 OK")) as there, Egress(Policy(ports=None)) as egress:
        answer = await egress.post(there.url, b"", {}, 10)
        assert answer.refused
        assert answer.error == "127.0.0.1 is loopback; the operator can allow it with HERDER_WEBHOOK_ALLOW"
        assert there.served == []


async def test_the_systems_own_resolver_is_checked_and_a_listed_name_is_reached() -> None:
    with contextlib.closing(Lookup()) as lookup:
        backend = GuardedBackend(Policy(ports=None), lookup, httpcore.AnyIOBackend())
        with pytest.raises(Refused, match="an address of localhost is loopback"):
            await backend.connect_tcp("localhost", 80)
    async with receiver(reply("200 OK")) as there:
        assert await post(f"http://localhost:{there.port}/") == Answer(200)
    assert f"host: localhost:{there.port}\r\n".encode() in there.heads[0].lower()


async def test_the_connection_is_pinned_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name turns and the system would know another answer: neither is asked after the check."""

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a second resolution")

    answers = iter([["127.0.0.2"], ["169.254.169.254"]])

    async def turning(host: str, port: int) -> list[str]:
        return next(answers)

    async with receiver(reply("200 OK"), host="127.0.0.2") as there:
        monkeypatch.setattr(socket, "getaddrinfo", never)
        async with Egress(LOOPBACK, resolve=turning) as egress:
            url = f"http://hooks.example:{there.port}/"
            assert await egress.post(url, b"", {}, 10) == Answer(200)
            assert (await egress.post(url, b"", {}, 10)).refused
        assert len(there.served) == 1
    assert f"host: hooks.example:{there.port}\r\n".encode() in there.heads[0].lower()


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver(reply("502 Proxy")) as proxy, receiver(reply("200 OK")) as there:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert await post(there.url) == Answer(200)
        assert proxy.served == []
