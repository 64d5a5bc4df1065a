"""Tiny llama models with random weights on real vocabularies, made on the spot: every tokenizer kind, a few megabytes.

The vocabularies are the test vocabularies inside the llama-cpp-python source package of the pinned version. They are
taken from uv's cache where `make setup` has built the package, else from the package index (nothing is built), and
kept in `.cache/`, which git ignores.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker.gguf import MAGIC, Header, read_header

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "vocabularies"
VOCABULARIES = ("llama-spm", "llama-bpe", "qwen2")
ALIGNMENT = 32

Weights = npt.NDArray[np.float16] | npt.NDArray[np.float32]

CONTEXT = 2048


@dataclass(frozen=True)
class Shape:
    """How large a model is, and so how slow; `mute` tokens at the vocabulary's start are never the likeliest, and what
    is computed from the token `poison` is NaN.
    """

    embedding: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int = 128
    mute: int = 0
    poison: int | None = None


SMALL = Shape()


def vocabulary_file(name: str) -> Path:
    """The vocabulary `ggml-vocab-NAME.gguf`, fetched once."""
    wanted = CACHE / f"ggml-vocab-{name}.gguf"
    if not wanted.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _from_uv_cache() or _from_package_index()
    return wanted


def _names() -> list[str]:
    return [f"ggml-vocab-{name}.gguf" for name in VOCABULARIES]


def _put(name: str, content: bytes) -> None:
    """Whole or not at all: two test runs may fetch at once."""
    part = CACHE / f"{name}.{os.getpid()}.part"
    part.write_bytes(content)
    part.replace(CACHE / name)


def _from_uv_cache() -> bool:
    cache = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
    pattern = f"sdists-*/*/llama-cpp-python/{version('llama-cpp-python')}/*/src/vendor/llama.cpp/models"
    for folder in cache.glob(pattern):
        if all((folder / name).exists() for name in _names()):
            for name in _names():
                _put(name, (folder / name).read_bytes())
            return True
    return False


def _from_package_index() -> bool:
    requirement = f"llama-cpp-python=={version('llama-cpp-python')}"
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run(
            [*pip, "--no-binary", "llama-cpp-python", "--dest", folder, requirement], check=True, timeout=600
        )
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.name.endswith(f"/vendor/llama.cpp/models/{name}") and name in _names():
                    file = archive.extractfile(member)
                    assert file is not None
                    _put(name, file.read())
    return True


def build(
    target: Path, vocabulary: Path, *, seed: int = 1, context: int = CONTEXT, shape: Shape = SMALL
) -> Path:
    """Write a random llama model on `vocabulary` to `target`."""
    header = read_header(vocabulary)
    kept = [raw for key, raw in header.entries.items() if key.startswith("tokenizer.")]
    tensors = _tensors(_array_length(header, "tokenizer.ggml.tokens"), shape, np.random.default_rng(seed))
    entries = [
        *kept,
        _text("general.architecture", "llama"),
        _text("general.name", f"random {vocabulary.stem}"),
        _number("general.alignment", ALIGNMENT),
        _number("llama.context_length", context),
        _number("llama.embedding_length", shape.embedding),
        _number("llama.block_count", shape.layers),
        _number("llama.feed_forward_length", shape.feed_forward),
        _number("llama.attention.head_count", shape.heads),
        _number("llama.rope.dimension_count", shape.embedding // shape.heads),
        _key("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5),
    ]
    infos, offset = b"", 0
    for name, values in tensors.items():
        infos += _key(name) + struct.pack("<I", values.ndim)
        infos += b"".join(struct.pack("<Q", size) for size in reversed(values.shape))
        infos += struct.pack("<IQ", 1 if values.dtype == np.float16 else 0, offset)
        offset += -(-values.nbytes // ALIGNMENT) * ALIGNMENT
    content = MAGIC + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries) + infos
    content += bytes(-len(content) % ALIGNMENT)
    part = target.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(content)
        for values in tensors.values():
            file.write(values.tobytes() + bytes(-values.nbytes % ALIGNMENT))
    part.replace(target)
    return target


def _tensors(vocab_size: int, shape: Shape, rng: np.random.Generator) -> dict[str, Weights]:
    """Weights large enough that the answers are far from uniform: the top two logits are mostly well apart."""

    def weight(rows: int, columns: int) -> npt.NDArray[np.float16]:
        scale = np.float32(1.5 / columns**0.5)
        return (rng.standard_normal((rows, columns), np.float32) * scale).astype(np.float16)

    ones = np.ones(shape.embedding, np.float32)
    tensors: dict[str, Weights] = {
        "token_embd.weight": rng.standard_normal((vocab_size, shape.embedding), np.float32).astype(
            np.float16
        ),
        "output_norm.weight": ones,
        "output.weight": weight(vocab_size, shape.embedding),
    }
    tensors["output.weight"][: shape.mute] = 0
    if shape.poison is not None:
        tensors["token_embd.weight"][shape.poison] = np.nan
    for i in range(shape.layers):
        tensors |= {
            f"blk.{i}.attn_norm.weight": ones,
            f"blk.{i}.ffn_norm.weight": ones,
            **{
                f"blk.{i}.attn_{part}.weight": weight(shape.embedding, shape.embedding)
                for part in ("q", "k", "v", "output")
            },
            f"blk.{i}.ffn_gate.weight": weight(shape.feed_forward, shape.embedding),
            f"blk.{i}.ffn_up.weight": weight(shape.feed_forward, shape.embedding),
            f"blk.{i}.ffn_down.weight": weight(shape.embedding, shape.feed_forward),
        }
    return tensors


def _array_length(header: Header, key: str) -> int:
    raw = header.entries[key]
    start = 8 + len(key.encode()) + 4
    inner, length = struct.unpack_from("<IQ", raw, start)
    assert inner == 8
    return int(length)


def _key(name: str) -> bytes:
    return struct.pack("<Q", len(name.encode())) + name.encode()


def _text(key: str, value: str) -> bytes:
    return _key(key) + struct.pack("<I", 8) + _key(value)


def _number(key: str, value: int) -> bytes:
    return _key(key) + struct.pack("<II", 4, value)
