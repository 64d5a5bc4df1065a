"""Llama models with random weights on real vocabularies, made once and kept beside the peers: as slow as real ones.

Their speed is that of a trained model of the same shape; what they say is nonsense of whole words. Only words have
weight in their last layer, so that no answer ends before its length, every token has text of its own, and a turn of a
chat has the same tokens when it comes back as history. `python -m benchmarks.models NAME` makes one and prints its
path. Must not know of the herd.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from benchmarks.peers import CACHE, source

CONTEXT = 8192
SEED = 1
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}### Assistant:{{ m.content }}\n"
    "{% else %}### {{ m.role | capitalize }}: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:{% endif %}"
)
# A word with the space before it, as the two kinds of vocabulary write it: text of such words has one way to be cut.
_WORD = re.compile("[\u2581\u0120][a-z]{2,}")
_COPIED = re.compile(r"tokenizer\.")

Blocks = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shape:
    """A llama: rows and columns, and the type of its weights."""

    vocabulary: str
    embedding: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    weights: gguf.GGMLQuantizationType

    @property
    def tensors(self) -> Iterator[tuple[str, int, int]]:
        """(name, rows, columns) of each matrix of the layers, in the order of the file."""
        kv = self.embedding // self.heads * self.kv_heads
        for i in range(self.layers):
            yield f"blk.{i}.attn_q.weight", self.embedding, self.embedding
            yield f"blk.{i}.attn_k.weight", kv, self.embedding
            yield f"blk.{i}.attn_v.weight", kv, self.embedding
            yield f"blk.{i}.attn_output.weight", self.embedding, self.embedding
            yield f"blk.{i}.ffn_gate.weight", self.feed_forward, self.embedding
            yield f"blk.{i}.ffn_up.weight", self.feed_forward, self.embedding
            yield f"blk.{i}.ffn_down.weight", self.embedding, self.feed_forward


Q8_0, Q4_0 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0
SHAPES = {
    "100m": Shape("llama-spm", 640, 12, 10, 5, 1792, Q8_0),
    "8b": Shape("llama-bpe", 4096, 32, 32, 8, 14336, Q4_0),
}


def model(name: str) -> Path:
    """The file of the shape of this name, made on first use (the 8 B one is 4.5 GB, and takes a minute)."""
    shape = SHAPES[name]
    path = CACHE / "models" / f"random-{name}-{shape.weights.name.lower()}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        _write(part, shape)
        part.replace(path)
    return path


def _write(path: Path, shape: Shape) -> None:
    vocabulary = gguf.GGUFReader(source() / "models" / f"ggml-vocab-{shape.vocabulary}.gguf")
    words = [bool(_WORD.fullmatch(token)) for token in vocabulary.fields["tokenizer.ggml.tokens"].contents()]
    speaks = np.array(words)
    writer = gguf.GGUFWriter(path, "llama")
    _head(writer, vocabulary, shape)
    matrices = [("token_embd.weight", len(words), shape.embedding), *shape.tensors]
    matrices.append(("output.weight", len(words), shape.embedding))
    norms = [f"blk.{i}.{part}_norm.weight" for i in range(shape.layers) for part in ("attn", "ffn")]
    norms.append("output_norm.weight")
    block, size = gguf.GGML_QUANT_SIZES[shape.weights]
    for name, rows, columns in matrices:
        row = columns // block * size
        writer.add_tensor_info(name, (rows, row), np.dtype(np.uint8), rows * row, raw_dtype=shape.weights)
    for name in norms:
        writer.add_tensor_info(name, (shape.embedding,), np.dtype(np.float32), 4 * shape.embedding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(SEED)
    # One matrix at a time: the whole need not fit into memory.
    for name, rows, columns in matrices:
        blocks = _random(rng, rows, columns, shape.weights)
        if name == "output.weight":
            blocks[~speaks] = 0
        writer.write_tensor_data(blocks)
    for _ in norms:
        writer.write_tensor_data(np.ones(shape.embedding, np.float32))
    writer.close()


def _head(writer: gguf.GGUFWriter, vocabulary: gguf.GGUFReader, shape: Shape) -> None:
    writer.add_name(f"random {shape.vocabulary}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_chat_template(TEMPLATE)
    for name, field in vocabulary.fields.items():
        if _COPIED.match(name):
            kind, inner = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), kind, sub_type=inner)


def _random(rng: np.random.Generator, rows: int, columns: int, kind: gguf.GGMLQuantizationType) -> Blocks:
    """Quantised blocks (rows, bytes) whose values are uniform about 0, with a variance of 1 / columns."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.empty((rows, columns // block, size), np.uint8)
    blocks[:] = np.frombuffer(rng.bytes(blocks.size), np.uint8).reshape(blocks.shape)
    if kind is Q8_0:
        blocks[:, :, 2:][blocks[:, :, 2:] == 0x80] = 0x81  # llama.cpp writes no -128
    # A uniform int8 deviates by 73.9; a nibble less 8 by 4.6, and by half a step from 0, which the signs make up for.
    scale = np.float16(columns**-0.5 / (73.9 if kind is Q8_0 else 4.64))
    signs = np.where(rng.random(blocks.shape[:2]) < 0.5, -scale, scale).astype(np.float16)
    blocks[:, :, :2] = signs.view(np.uint8).reshape(*signs.shape, 2)
    return blocks.reshape(rows, -1)


if __name__ == "__main__":
    print(model(sys.argv[1]))
