"""Attacks that take more than one request: the edge of the context, keys used again, streams cut, storms of cancels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.arena import Arena
from tests.e2e.attacks import BAD, CONTEXT, INVALID, JOBS, SUCCEEDED, Attack, job, written

CONTEXT_TOKENS = 1_024
CUT = {"cut": "by its caller"}
BATCHES = "/v1/batches"
TEN_THOUSAND = 10_000
STORM = 24
CUTS = 24
HALVES = 24
ANSWERED_S = 1.0
NOBODY = "127.0.0.77"


async def edge_of_the_context(arena: Arena) -> None:
    """What fits exactly is answered to the last token, one more is refused."""
    for name, text in {
        "letters": "x" * 1_000,
        "bytes": "日" * 330,
        "specials": "<|end|>" * 1_000,
        "words": "a " * 980,
    }.items():
        fields: dict[str, Any] = {"prompt": text, "raw": True, "ignore_eos": True}
        shown = await arena.answered(job(f"edge, {name}: measured", SUCCEEDED, **fields | {"tokens": 1}))
        left = CONTEXT_TOKENS - shown["result"]["prompt_tokens"]
        fits = job(f"edge, {name}: fits", SUCCEEDED, **fields | {"tokens": left})
        shown = await arena.answered(fits)
        arena.expect(shown["result"]["completion_tokens"] == left, f"{fits.name}: {shown['result']}")
        await arena.send(job(f"edge, {name}: one more", CONTEXT, **fields | {"tokens": left + 1}))
        hot = {"temperature": 2.0, "seed": 1, "n": 4}
        await arena.send(job(f"edge, {name}: four answers", SUCCEEDED, **fields | hot | {"tokens": left}))


async def keys_used_again(arena: Arena) -> None:
    """One Idempotency-Key buys once, however it is used."""
    key = {"Idempotency-Key": "k" * 255}
    content = written({"prompt": "hi", "tokens": 5, "metadata": {"a": "1"}})
    same = [Attack(f"same key {i}", content, frozenset({SUCCEEDED}), headers=key) for i in range(20)]
    shown = await asyncio.gather(*map(arena.answered, same))
    arena.expect(len({each["id"] for each in shown}) == 1, "one key bought more than once")
    for number, changed in enumerate(('"tokens":6', '"n":2', '"seed":0', '"share_prefix":true')):
        body = {"prompt": "hi", "tokens": 5, "metadata": {"a": "1"}} | json.loads(f"{{{changed}}}")
        conflict = frozenset({"409 idempotency_conflict"})
        await arena.send(Attack(f"same key, other body {number}", written(body), conflict, headers=key))
    refused = {"Idempotency-Key": "refused-first"}
    await arena.send(Attack("refused with a key", b'{"prompt":"hi"}', frozenset({INVALID}), headers=refused))
    await arena.send(Attack("then right", content, frozenset({SUCCEEDED}), headers=refused))


async def streams_cut(arena: Arena) -> None:
    """Streams are left at every moment, the earliest ones before a byte of the answer has come."""
    address = urlsplit(arena.url)
    path = f"{JOBS}?stream=true&cancel_on_disconnect=true"
    body = written({"prompt": "Tell me all.", "tokens": 400, "ignore_eos": True, "metadata": CUT})

    async def cut(number: int) -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {arena.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[: len(body) - number % 2])
        await writer.drain()
        if number % 4 == 2:
            await reader.readuntil(b"\r\n\r\n")
        if number % 8 == 0:
            await reader.readuntil(b"event: queued")
        writer.transport.abort()

    await asyncio.gather(*map(cut, range(CUTS)))


async def half_requests(arena: Arena) -> None:
    """Connections that stop in the middle of a request are open while others are answered."""
    address = urlsplit(arena.url)
    writers = []
    for number in range(HALVES):
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"POST {JOBS} HTTP/1.1\r\nHost: h\r\nX-API-Key: {arena.key}\r\nContent-Length: 1000\r\n\r\n{{"
        writer.write(head.encode()[: 20 + number * 8])
        writers.append(writer)
    await arena.send(job("beside half requests", SUCCEEDED))
    for writer in writers:
        writer.transport.abort()


async def broken_http(arena: Arena) -> None:
    """Requests that are none, or say two things of their own length: refused, and nobody else's is taken for theirs."""
    address = urlsplit(arena.url)
    body = written({"prompt": "hi", "tokens": 4})
    head = f"POST {JOBS} HTTP/1.1\r\nHost: h\r\nX-API-Key: {arena.key}\r\n".encode()
    for name, sent in {
        "noise": bytes(range(256)) * 20,
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50,
        "no host": b"GET /nothing HTTP/1.1\r\n\r\n",
        "two lengths": head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + body,
        "length and chunks": head
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + body,
        "negative length": head + b"Content-Length: -5\r\n\r\n" + body,
        "huge length": head + b"Content-Length: 9" + b"9" * 30 + b"\r\n\r\n",
        "bad chunk": head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "huge chunk": head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\na",
        "long line": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        "many headers": head + b"A: b\r\n" * 20_000 + b"\r\n",
        "NUL in a header": head + b"A: \x00\r\n\r\n",
        "HTTP/9": b"GET / HTTP/9.9\r\nHost: h\r\n\r\n",
    }.items():
        said = await _said(address.hostname, address.port, sent)
        arena.expect(
            said == b"" or said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), f"{name}: {said[:200]!r}"
        )
        arena.sent += 1
    await arena.send(job("after broken HTTP", SUCCEEDED))


async def _said(host: str | None, port: int | None, sent: bytes) -> bytes:
    """What is answered before the connection is closed, or nothing more comes."""
    reader, writer = await asyncio.open_connection(host, port)
    said = b""
    try:
        async with asyncio.timeout(ANSWERED_S):
            writer.write(sent)
            while piece := await reader.read(65_536):
                said += piece
    except (TimeoutError, ConnectionError):
        pass  # closed in the middle, or waiting for the rest
    writer.transport.abort()
    return said


async def cancels(arena: Arena) -> None:
    """Every job is cancelled five times at once, by its owner and by a stranger, who sees none of them."""
    long: dict[str, Any] = {"prompt": "Tell me all.", "tokens": 500, "ignore_eos": True}
    sent = [arena.posted(job(f"to be cancelled {i}", "cancelled", SUCCEEDED, **long)) for i in range(STORM)]
    ids = [shown["id"] for shown in await asyncio.gather(*sent)]
    strange = [await arena.status("DELETE", f"{JOBS}/{each}", arena.stranger) for each in ids[:4]]
    arena.expect(set(strange) == {404}, f"a stranger's DELETE: {strange}")
    storm = [arena.status("DELETE", f"{JOBS}/{each}") for each in ids for _ in range(5)]
    statuses = set(await asyncio.gather(*storm))
    arena.expect(statuses <= {200, 202}, f"DELETE: {statuses}")
    for each in ids:
        shown = await arena.ended(each)
        arena.expect(
            shown["status"] in ("cancelled", "succeeded"), f"{each} was cancelled: {shown['status']}"
        )


async def batches(arena: Arena) -> None:
    """One bad item refuses a whole batch; good ones that look bad are all answered."""
    good = {"prompt": "hi", "tokens": 4}
    for name, item in {
        "no prompt": {"tokens": 4}, "no tokens": {"prompt": "hi"}, "a fee": good | {"fee": 5}, "a bomb": good | {
            "output_type": {f"a{i}": [str(j) for j in range(512)] for i in range(128)}},
        "NUL": {"prompt": "\x00", "tokens": 4},
        "too long": good | {"prompt": "x" * 5_000}, "a bias beyond": good | {"logit_bias": {"1024": 1}},
        "65 stops": good | {"stop": ["a"] * 65}, "a huge number": good | {"temperature": "@number 1e400@"},
        "unknown model": good | {"model": "none"}, "a long custom_id": good | {"custom_id": "c" * 257}, "no item": 5,
    }.items():  # fmt: skip
        content = written({"items": [good, good, item]})
        becomes = frozenset({INVALID, CONTEXT, "404 unknown_model"})
        await arena.send(Attack(f"batch: {name}", content, becomes, path=BATCHES))
    for name, body in {
        "empty": {"items": []}, "both": {"items": [good], "prompts": ["a"], "tokens": 4}, "10 001": {
            "prompts": ["a"] * (TEN_THOUSAND + 1), "tokens": 4},
        "twice the id": {"items": [good | {"custom_id": "a"}] * 2},
        "nothing": {},
    }.items():  # fmt: skip
        await arena.send(Attack(f"batch: {name}", written(body), frozenset({INVALID}), path=BATCHES))
    lines = {"Content-Type": "application/jsonl"}
    for name, content in {
        "garbage": b"\x00\xff\n" * 100,
        "lists": b"[]\n[]\n",
        "half": b'{"prompt":"a"',
    }.items():
        becomes = frozenset({INVALID, BAD})
        await arena.send(
            Attack(f"lines: {name}", content, becomes, path=f"{BATCHES}?tokens=4", headers=lines)
        )
    await _whole_batch(arena)


async def _whole_batch(arena: Arena) -> None:
    texts = [
        "<|end|>" * 20,
        "\u202e" * 30,
        "{{ 1/0 }}",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ]
    forms = [{"prompt": "hi", "tokens": 30, "output_type": {"a": "bool"}}] * 4
    body = {"items": [{"prompt": text, "tokens": 4} for text in texts] + forms}
    shown = await arena.posted(
        Attack("batch of all that is allowed", written(body), frozenset({SUCCEEDED}), path=BATCHES)
    )
    results = await arena.text(f"{BATCHES}/{shown['id']}/results")
    ended = [json.loads(line) for line in results.splitlines() if line.strip()]
    arena.items += [each["job_id"] for each in ended]
    states = [each["status"] for each in ended]
    arena.expect(states == ["succeeded"] * len(body["items"]), f"items: {states}")
    shown = await arena.posted(
        Attack("batch to be cancelled", written({"prompts": ["hi"] * 100, "tokens": 300, "ignore_eos": True}),
               frozenset({"cancelled"}), path=BATCHES)
    )  # fmt: skip
    storm = [arena.status("DELETE", f"{BATCHES}/{shown['id']}") for _ in range(10)]
    statuses = set(await asyncio.gather(*storm))
    arena.expect(statuses <= {200, 202}, f"DELETE of a batch: {statuses}")
    results = await arena.text(f"{BATCHES}/{shown['id']}/results")
    arena.items += [json.loads(line)["job_id"] for line in results.splitlines() if line.strip()]


async def nobody_listens(arena: Arena) -> None:
    """A webhook address at which nobody is."""
    await arena.send(job("a webhook for nobody", SUCCEEDED, webhook_url=f"http://{NOBODY}/" + "%00" * 600))


MOVES: tuple[Callable[[Arena], Awaitable[None]], ...] = (
    edge_of_the_context, keys_used_again, streams_cut, half_requests, broken_http, cancels, batches, nobody_listens,
)  # fmt: skip
