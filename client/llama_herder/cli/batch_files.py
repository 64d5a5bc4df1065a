"""The two files of `herder batch`: the answers, and beside them what is needed to go on after any end of the command.

The state is on disk before anything is paid for, and goes when the last answer is. Knows no herd.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from llama_herder._batch_results import LINE_BYTES_MAX
from llama_herder.batches import BatchResult
from llama_herder.cli.output import CannotWrite, UsageProblem

SUFFIX = ".herder-batch"
STATE_BYTES_MAX = 1_000_000
VERSION = 1


@dataclass(frozen=True)
class Begun:
    """A batch that was begun. `batch_id`, `total` and `refused` are known once the herder has answered."""

    url: str
    account: str
    input_sha256: str
    options: Mapping[str, Any]
    idempotency_key: str
    begun_ms: int
    batch_id: str | None = None
    total: int = 0
    refused: int = 0

    def accepted(self, batch_id: str, total: int, refused: int) -> Begun:
        """The same, once it is known."""
        return replace(self, batch_id=batch_id, total=total, refused=refused)


@dataclass
class Tally:
    """What the answers so far add up to."""

    cursor: int = 0
    done: int = 0
    tokens: int = 0
    captured: int = 0
    refunded: int = 0
    by_status: dict[str, int] = field(default_factory=dict)

    def add(self, result: BatchResult) -> None:
        """One more."""
        self.cursor = result.cursor
        self.done += 1
        self.tokens += result.result.completion_tokens if result.result else 0
        self.captured += result.captured
        self.refunded += result.refunded
        self.by_status[result.status] = self.by_status.get(result.status, 0) + 1


class State:
    """The state file of one file of answers."""

    def __init__(self, out: Path) -> None:
        self.path = Path(f"{out}{SUFFIX}")

    def load(self) -> Begun | None:
        """The batch that is not finished; None where there is none."""
        try:
            with self.path.open("rb") as file:
                found = json.loads(file.read(STATE_BYTES_MAX))
            if found.pop("version") != VERSION:
                raise ValueError
            return Begun(**found)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _cannot("read", self.path, error) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageProblem(f"{self.path} was not written by this herder batch: move it away") from None

    def save(self, begun: Begun) -> None:
        """On disk when this returns, old or new but never half."""
        draft = Path(f"{self.path}.new")
        try:
            with draft.open("wb") as file:
                file.write(json.dumps({"version": VERSION, **asdict(begun)}, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise _cannot("write", self.path, error) from None

    def forget(self) -> None:
        """There is nothing to go on with."""
        self.path.unlink(missing_ok=True)


class Answers:
    """The file of answers, one a line; held by one command at a time."""

    def __init__(self, out: Path) -> None:
        self.path = out
        self.made = not out.exists()
        if not self.made and not out.is_file():
            raise UsageProblem(f"{out} is not a file")
        try:
            # Neither "a", which cannot go back to the last whole line, nor "w", which empties.
            self._file: BinaryIO = os.fdopen(os.open(out, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise _cannot("write", out, error) from None
        if not _locked(self._file.fileno()):
            self._file.close()
            raise UsageProblem(f"another herder batch is writing {out}")

    @property
    def empty(self) -> bool:
        """Whether nothing is in it."""
        return os.fstat(self._file.fileno()).st_size == 0

    def resume(self) -> Tally:
        """Keeps the whole lines and cuts off what a hard end left behind them. Raises CannotWrite."""
        tally = Tally()
        self._file.seek(0)
        good = 0
        with os.fdopen(os.dup(self._file.fileno()), "rb") as reading:
            while line := reading.readline(LINE_BYTES_MAX):
                result = _result(line)
                if result is None or result.cursor != tally.cursor + 1:
                    break
                tally.add(result)
                good += len(line)
        with self._writing():
            self._file.truncate(good)
        self._file.seek(good)
        return tally

    def clear(self) -> None:
        """Begin anew. Raises CannotWrite."""
        with self._writing():
            self._file.truncate(0)
        self._file.seek(0)

    def write(self, result: BatchResult) -> None:
        """One answer, as the herder gave it; past any buffer of this process. Raises CannotWrite."""
        left = memoryview(_line(result))
        with self._writing():
            while left:
                left = left[self._file.write(left) :]

    def sync(self) -> None:
        """On disk when this returns. Raises CannotWrite: some disks say only here that they are full."""
        with self._writing():
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = (error.strerror or "it broke").lower()
            raise CannotWrite(f"{self.path} could not be written ({why})") from error

    def close(self, drop: bool = False) -> None:
        """Let go of it; with `drop` as if this command had never been, where it made the file."""
        if drop and self.made and self.empty:
            self.path.unlink(missing_ok=True)
        self._file.close()


def _line(result: BatchResult) -> bytes:
    found = dict(result.raw)
    try:
        return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # half a character
        return json.dumps(found, separators=(",", ":")).encode() + b"\n"


def _result(line: bytes) -> BatchResult | None:
    """A whole line of ours; None for one that was cut, and for what a power cut makes of a file's end."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("cursor"), int):
        return None
    return BatchResult.from_json(found)


def _locked(number: int) -> bool:
    """Whether this process has the file for itself; the lock goes with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows has none of these
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _cannot(do: str, path: Path, error: OSError) -> UsageProblem:
    return UsageProblem(f"cannot {do} {str(path)!r}: {(error.strerror or 'it broke').lower()}")
