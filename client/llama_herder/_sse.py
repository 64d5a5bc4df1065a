"""The text/event-stream format: bytes in any pieces to frames. Pure; knows nothing of jobs and of HTTP."""

from __future__ import annotations

import re
from dataclasses import dataclass

FRAME_BYTES_MAX = 16_000_000

_LINE_END = re.compile(rb"\r\n|\r|\n")
_RETRY = re.compile(r"[0-9]{1,9}")
_BOM = b"\xef\xbb\xbf"


class TooLong(ValueError):
    """A frame is longer than anything that a herder sends."""


@dataclass(frozen=True)
class Frame:
    """One event. `id` is the one that stood in it, None where it had none."""

    event: str
    data: str
    id: str | None


class Parser:
    """Reads one stream, from its first byte on; what follows its last blank line was cut off and is no event."""

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.retry_ms: int | None = None
        self._bytes_max = bytes_max
        self._line = bytearray()
        self._at_start = True
        self._after_cr = False
        self._begin()

    def _begin(self) -> None:
        self._event, self._size = "message", 0
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that this piece completes. Raises TooLong once one grows over the limit."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        *ends, rest = _LINE_END.split(piece)
        frames: list[Frame] = []
        for end in ends:
            self._grow(end)
            line = bytes(self._line)
            self._line.clear()
            if self._at_start:
                line, self._at_start = line.removeprefix(_BOM), False
            if line:
                self._take(line.decode("utf-8", errors="replace"))
            else:
                if self._data:
                    frames.append(Frame(self._event, "\n".join(self._data), self._id))
                self._begin()
        self._grow(rest)
        return frames

    def _grow(self, more: bytes) -> None:
        self._size += len(more)
        if self._size > self._bytes_max:
            raise TooLong(f"an event is longer than {self._bytes_max} bytes")
        self._line += more

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value or "message"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and _RETRY.fullmatch(value):
            self.retry_ms = int(value)
