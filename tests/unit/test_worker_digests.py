"""The list of model files that may be served: how it is given, and that nothing else reaches native code."""

from __future__ import annotations

import hashlib
import struct
from importlib.resources import files
from pathlib import Path

import pytest

from worker import models
from worker.digests import other_parts, read_allowed
from worker.engine import ModelUnusable
from worker.gguf import Header
from worker.main import EXIT_BAD_MODEL, EXIT_USAGE, run

HERD_TINY = Path(str(files("herder") / "models" / "herd-tiny.gguf"))
DIGEST = hashlib.sha256(HERD_TINY.read_bytes()).hexdigest()
OTHER = "0" * 64


def test_no_entry_is_no_list() -> None:
    assert read_allowed(()) is None
    assert models.check(HERD_TINY).tensors > 0


def test_digests_and_files_of_them(tmp_path: Path) -> None:
    listed = tmp_path / "allowed.txt"
    listed.write_text(f"# ours\n\n{DIGEST.upper()}  herd-tiny.gguf\n{'1' * 64}\n")
    assert read_allowed((OTHER, str(listed))) == frozenset({OTHER, DIGEST, "1" * 64})


@pytest.mark.parametrize("content", ["", "# none yet\n", "herd-tiny.gguf\n", DIGEST[:-1], "x" * 1_000_001])
def test_a_list_that_cannot_be_read_allows_nothing(content: str, tmp_path: Path) -> None:
    listed = tmp_path / "allowed.txt"
    listed.write_text(content)
    with pytest.raises(ValueError, match=r"HERDER_MODEL_SHA256: .*allowed\.txt"):
        read_allowed((str(listed),))


def test_a_file_that_is_on_the_list_is_served_and_another_never_reaches_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probed: list[Path] = []
    monkeypatch.setattr(models, "_probe", lambda path, *_: probed.append(path))
    assert models.check(HERD_TINY, frozenset({OTHER, DIGEST})).tensors > 0
    assert len(probed) == 1
    with pytest.raises(ModelUnusable, match=DIGEST):
        models.check(HERD_TINY, frozenset({OTHER}))
    assert len(probed) == 1


def split(count: int, kind: int = 2) -> Header:
    """The header of the first part of so many."""
    key = b"split.count"
    value = struct.pack("<H" if kind == 2 else "<I", count)
    raw = struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value
    return Header(3, 1, {"split.count": raw}, 0)


def test_every_part_of_a_split_model_is_checked(tmp_path: Path) -> None:
    first = tmp_path / "big-00001-of-00003.gguf"
    assert [part.name for part in other_parts(first, split(3))] == [
        "big-00002-of-00003.gguf",
        "big-00003-of-00003.gguf",
    ]
    assert other_parts(first, split(1)) == []
    assert other_parts(HERD_TINY, Header(3, 1, {}, 0)) == []
    assert other_parts(first, split(3, kind=4)) == []  # not what llama.cpp takes for a split
    for name, count in (("big.gguf", 3), ("big-00001-of-00002.gguf", 3), ("a-00001-of-65535.gguf", 65_535)):
        with pytest.raises(ModelUnusable, match="split model"):
            other_parts(tmp_path / name, split(count))


def test_a_part_that_is_not_allowed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for part in parts:
        part.write_bytes(part.name.encode())
    monkeypatch.setattr(models, "read_header", lambda _: split(2))
    monkeypatch.setattr(models, "_probe", lambda *_: None)
    digests = [hashlib.sha256(part.read_bytes()).hexdigest() for part in parts]
    assert models.check(parts[0], frozenset(digests)).tensors == 1
    with pytest.raises(ModelUnusable, match=digests[1]):
        models.check(parts[0], frozenset(digests[:1]))
    parts[1].unlink()
    with pytest.raises(ModelUnusable, match="No such file"):
        models.check(parts[0], frozenset(digests))


def test_the_exit_code_and_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    here = ["--model", "herd-tiny", "--redis-url", "redis://127.0.0.1:1"]
    assert run([*here, "--sha256", OTHER]) == EXIT_BAD_MODEL
    said = capsys.readouterr().err
    assert DIGEST in said
    assert said.count("\n") == 1
    assert run([*here, "--sha256", "nowhere.txt"]) == EXIT_USAGE
    assert "neither a digest nor a file" in capsys.readouterr().err
