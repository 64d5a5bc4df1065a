"""What a header may claim: numbers that llama.cpp would answer with something beside the point, or with an abort."""

from __future__ import annotations

import struct
from importlib.resources import files
from pathlib import Path

import pytest

from worker.gguf import BadGguf, read_header

HERD_TINY = Path(str(files("herder") / "models" / "herd-tiny.gguf"))


@pytest.mark.parametrize(
    ("key", "size", "sound"),
    [
        (b"llama.context_length", 0, False),
        (b"llama.context_length", 1, True),
        (b"llama.context_length", 2**30, True),
        (b"llama.context_length", 2**32 - 1, False),
        (b"llama.block_count", 0, False),
        (b"llama.block_count", 512, True),
        (b"llama.block_count", 513, False),
    ],
)
def test_a_size_that_no_model_has(key: bytes, size: int, sound: bool, tmp_path: Path) -> None:
    whole = HERD_TINY.read_bytes()
    at = whole.index(key) + len(key) + 4
    path = tmp_path / "m.gguf"
    path.write_bytes(whole[:at] + struct.pack("<I", size) + whole[at + 4 :])
    if sound:
        assert read_header(path).tensors > 0
    else:
        with pytest.raises(BadGguf, match=rf"^{size} \w+"):
            read_header(path)
