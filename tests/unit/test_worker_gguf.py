"""What a header may claim: numbers that llama.cpp would answer with something beside the point, or with an abort."""

from __future__ import annotations

import struct
from importlib.resources import files
from pathlib import Path

import pytest

from worker.gguf import CONTEXT_MAX, BadGguf, read_header

HERD_TINY = Path(str(files("herder") / "models" / "herd-tiny.gguf"))
KEY = b"llama.context_length"


@pytest.mark.parametrize(
    ("tokens", "sound"), [(0, False), (1, True), (CONTEXT_MAX, True), (2**32 - 1, False)]
)
def test_a_context_that_nobody_has_made(tokens: int, sound: bool, tmp_path: Path) -> None:
    whole = HERD_TINY.read_bytes()
    at = whole.index(KEY) + len(KEY) + 4
    path = tmp_path / "m.gguf"
    path.write_bytes(whole[:at] + struct.pack("<I", tokens) + whole[at + 4 :])
    if sound:
        assert read_header(path).tensors > 0
    else:
        with pytest.raises(BadGguf, match=f"a context of {tokens} tokens"):
            read_header(path)
