"""Files that callers leave, at their door to Redis: what is kept comes back, and reading it costs what it is long."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest

from herder import files
from herder.broker import Broker
from herder.files import Files
from herder.ledger import Ledger

TTL_MS = 60_000
ODD = random.Random(5).randbytes(3_000_000)


@pytest.fixture
async def door(broker: Broker, ledger: Ledger) -> Files:
    """For ann."""
    await ledger.create_account("ann")
    return Files(broker)


async def kept(door: Files, file: str, text: bytes) -> None:
    await door.keep("ann", file, name="asked.jsonl", purpose="batch", text=text, ttl_ms=TTL_MS)


async def read(door: Files, file: str) -> tuple[bytes, int]:
    """What comes of it piece by piece, and how long the longest piece is."""
    pieces = [piece async for piece in await door.pieces(file)]
    return b"".join(pieces), max(map(len, pieces))


@pytest.mark.parametrize("text", [b"x", b"{}\n" * 700_000, ODD, ODD[:1_000_000] + bytes(2_000_000)])
async def test_what_was_kept_comes_back_in_small_pieces(door: Files, text: bytes) -> None:
    await kept(door, "file-a", text)
    assert await door.text("file-a") == text
    found, longest = await read(door, "file-a")
    assert found == text
    assert longest <= files.PIECE_BYTES


async def test_reading_handles_no_byte_again_and_again(door: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that were not used come back as a copy: with all that is left, each time, a large file took seconds."""
    handled = 0

    class Counted:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def decompress(self, given: bytes, most: int) -> bytes:
            nonlocal handled
            handled += len(given)
            done: bytes = self.inner.decompress(given, most)
            return done

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    whole = zlib.decompressobj
    await kept(door, "file-a", ODD)
    monkeypatch.setattr(zlib, "decompressobj", lambda: Counted(whole()))
    assert (await read(door, "file-a"))[0] == ODD
    assert handled <= 2 * len(ODD) + 1_000_000
