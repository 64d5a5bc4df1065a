"""Files that callers leave here for a time: their door to Redis, beside the broker as the ledger is.

Kept compressed, since JSON lines shrink to a tenth. Knows no HTTP, and not what is in a file.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from herder.broker import Broker
from herder.errors import InvalidRequest, NotFound, RedisUnavailable
from herder.replies import text_of

PIECE_BYTES = 65_536
PART_BYTES = 1_000_000  # of what is kept, in one script: everybody else waits for it
KEEPING_TTL_MS = 600_000  # of parts of which no file comes
FILES_MAX = 500  # of one account
LEVEL = 1  # of compression: nine times as fast as the best, and nearly as small


@dataclass(frozen=True)
class FileRecord:
    """A file without what is in it; `size` is its length in bytes as it came."""

    file: str
    account: str
    name: str
    purpose: str
    size: int
    created_ms: int
    expires_ms: int


class Files:
    """Keep, read, list, discard. All methods raise RedisUnavailable."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def keep(
        self, account: str, file: str, *, name: str, purpose: str, text: bytes, ttl_ms: int
    ) -> FileRecord:
        """Keep a file for so long. Raises InvalidRequest (the account has no room for it), NotFound (account)."""
        kept = await asyncio.to_thread(zlib.compress, text, LEVEL)
        most = self._broker.settings.files_bytes_max
        arguments = {
            "account": account, "file": file, "name": name, "purpose": purpose, "bytes": len(text),
            "ttl_ms": ttl_ms, "files_max": FILES_MAX, "kept_bytes": len(kept), "kept_bytes_max": most,
            "keeping_ttl_ms": KEEPING_TTL_MS,
        }  # fmt: skip
        reply: list[Any] = []
        starts = range(0, len(kept), PART_BYTES)
        for part, start in enumerate(starts):
            arguments |= {"part": part, "last": part == len(starts) - 1}
            found = await self._broker.scripts.call("keep", arguments, kept[start : start + PART_BYTES])
            reply = [text_of(word) for word in found]
            if reply != ["MORE"]:
                break
        match reply:
            case ["OK", int(now_ms), int(expires_ms)]:
                return FileRecord(file, account, name, purpose, len(text), now_ms, expires_ms)
            case ["LOST"]:
                raise RedisUnavailable(
                    "Redis has lost the beginning of the file; send it again", retry_after=1
                )
            case ["MANY"]:
                raise _no_room(f"{FILES_MAX} files are kept for this account; delete some")
            case ["LARGE", room]:
                raise _no_room(
                    f"is {len(kept)} bytes compressed, and {room} of HERDER_FILES_BYTES_MAX, {most}, are left for this "
                    "account; delete some files"
                )
        raise NotFound(f"no account {account}")

    async def discard(self, account: str, file: str) -> None:
        """Forget it now. Raises NotFound."""
        if text_of(await self._broker.scripts.call("discard", {"account": account, "file": file})) != "OK":
            raise NotFound(f"no file {file} in this account")

    async def file(self, account: str, file: str) -> FileRecord:
        """A file of this account. Raises NotFound."""
        (found,) = await self._records([file])
        if found is None or found.account != account:
            raise NotFound(f"no file {file} in this account")
        return found

    async def text(self, file: str) -> bytes:
        """What is in it. Raises NotFound: its time is over."""
        return await asyncio.to_thread(zlib.decompress, b"".join(await self._kept(file)))

    async def pieces(self, file: str) -> AsyncGenerator[bytes, None]:
        """The same, piece by piece: so long as somebody takes it, no more is in memory than is kept.

        Raises NotFound now, and not when the first is asked for.
        """
        return _inflated(await self._kept(file))

    async def _kept(self, file: str) -> list[bytes]:
        """Its parts, each read by itself; they come and go together."""
        broker, key = self._broker, self._broker.keys("file_text", file)
        count = await broker.fetch(broker.redis.llen(key))
        parts: list[bytes | None] = [await broker.fetch(broker.redis.lindex(key, i)) for i in range(count)]
        there = [part for part in parts if part is not None]
        if not there or len(there) < count:
            raise NotFound(f"file {file} is no longer kept")
        return there

    async def files(self, account: str) -> list[FileRecord]:
        """An account's files, newest first."""
        broker = self._broker
        ids = await broker.fetch(broker.redis.zrange(broker.keys("account_files", account), 0, -1))
        found = await self._records([file.decode() for file in ids])
        there = [record for record in found if record is not None]
        return sorted(there, key=lambda record: (record.created_ms, record.file), reverse=True)

    async def _records(self, files: list[str]) -> list[FileRecord | None]:
        hashes = await self._broker.hashes_of([("file", file) for file in files])
        return [_record(file, fields) if fields else None for file, fields in zip(files, hashes, strict=True)]


async def _inflated(parts: list[bytes]) -> AsyncGenerator[bytes, None]:
    inflating = zlib.decompressobj()
    for part in parts:
        for start in range(0, len(part), PIECE_BYTES):
            given = part[start : start + PIECE_BYTES]
            while given:
                yield inflating.decompress(given, PIECE_BYTES)
                given = inflating.unconsumed_tail  # a copy: so it is never of much
    if rest := inflating.flush():
        yield rest


def _record(file: str, fields: dict[str, str]) -> FileRecord:
    return FileRecord(
        file=file,
        account=fields["account"],
        name=fields["name"],
        purpose=fields["purpose"],
        size=int(fields["bytes"]),
        created_ms=int(fields["created_ms"]),
        expires_ms=int(fields["expires_ms"]),
    )


def _no_room(problem: str) -> InvalidRequest:
    return InvalidRequest(f"file: {problem}", errors=[{"field": "file", "message": problem}])
