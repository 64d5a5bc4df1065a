"""Files that callers leave, at their door to Redis: what is kept comes back, and reading it costs what it is long."""

from __future__ import annotations

import random
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from herder import files
from herder.broker import Broker
from herder.errors import InvalidRequest, NotFound, RedisUnavailable
from herder.files import Files
from herder.ledger import Ledger
from herder.settings import Settings

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


async def between(
    door: Files, broker: Broker, monkeypatch: pytest.MonkeyPatch, then: Callable[[], Awaitable[object]]
) -> None:
    """Keep a file of three parts, and before the last of them do something else."""
    monkeypatch.setattr(files, "PART_BYTES", 1_000)
    call = broker.scripts.call
    held: list[int] = []

    async def watched(name: str, arguments: dict[str, Any], text: str | bytes = "") -> Any:
        if arguments.get("file") == "file-long" and arguments.get("last"):
            held.append(await broker.fetch(broker.redis.pttl(broker.keys("file_text", "file-long"))))
            await then()
        return await call(name, arguments, text)

    monkeypatch.setattr(broker.scripts, "call", watched)
    try:
        await kept(door, "file-long", ODD[:2_500])
    finally:
        assert 0 < held[0] <= files.KEEPING_TTL_MS  # what is never finished goes by itself


async def test_a_long_file_comes_in_parts_so_that_no_script_is_long(
    door: Files, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> None:
        with pytest.raises(NotFound):
            await door.file("ann", "file-long")

    await between(door, broker, monkeypatch, nothing)
    parts = await broker.fetch(broker.redis.lrange(broker.keys("file_text", "file-long"), 0, -1))
    assert [len(part) for part in parts[:-1]] == [1_000, 1_000]
    assert await door.text("file-long") == ODD[:2_500]
    assert (await read(door, "file-long"))[0] == ODD[:2_500]
    left = [
        await broker.fetch(broker.redis.pttl(broker.keys(key, "file-long"))) for key in ("file", "file_text")
    ]
    assert max(left) <= TTL_MS < min(left) + 30_000
    await door.discard("ann", "file-long")
    assert await broker.fetch(broker.redis.exists(broker.keys("file_text", "file-long"))) == 0


async def test_a_file_whose_beginning_is_lost_is_none(
    door: Files, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost() -> None:
        await broker.fetch(broker.redis.delete(broker.keys("file_text", "file-long")))

    with pytest.raises(RedisUnavailable, match="send it again"):
        await between(door, broker, monkeypatch, lost)
    assert await door.files("ann") == []


async def test_two_files_that_come_at_once_do_not_share_the_same_room(
    settings: Settings, door: Files, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "settings", settings.model_copy(update={"files_bytes_max": 3_000}))

    async def another() -> None:
        await kept(door, "file-other", ODD[:900])

    with pytest.raises(InvalidRequest, match="HERDER_FILES_BYTES_MAX"):
        await between(door, broker, monkeypatch, another)
    assert [record.file for record in await door.files("ann")] == ["file-other"]
    assert await broker.fetch(broker.redis.exists(broker.keys("file_text", "file-long"))) == 0
    with pytest.raises(NotFound, match="no longer kept"):
        await door.text("file-long")


async def test_an_account_has_so_many_files_and_room_again_when_one_is_deleted(
    door: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FILES_MAX", 2)
    for file in ("file-a", "file-b"):
        await kept(door, file, b"x")
    with pytest.raises(InvalidRequest, match="2 files are kept for this account; delete some"):
        await kept(door, "file-c", b"x")
    await door.discard("ann", "file-a")
    await kept(door, "file-c", b"x")
    assert {record.file for record in await door.files("ann")} == {"file-b", "file-c"}
