"""The model card that a worker publishes, and the vocabulary that goes with it.

Must not know of Redis or llama_cpp: facts come from the engine, the vocabulary from the GGUF's header.
"""

from __future__ import annotations

from herder.protocol import ModelCard
from worker.engine import EngineFacts
from worker.gguf import Header, without_tensors

VOCAB_BYTES_MAX = 32 * 1024 * 1024
"""A larger vocabulary is not published; the worker then counts alone and refuses with a full refund."""


def model_card(name: str, facts: EngineFacts) -> ModelCard:
    """What this worker tells the herd of its model."""
    return ModelCard(
        model=name,
        context=min(facts.context, facts.kv_tokens),
        vocab_size=facts.vocab_size,
        max_piece_bytes=facts.max_piece_bytes,
        template=facts.template,
        bos_token=facts.bos_token,
        eos_token=facts.eos_token,
        adds_bos=facts.adds_bos,
        description=facts.description,
    )


def vocabulary(header: Header) -> bytes | None:
    """The GGUF without tensors, or None where it would be too large to publish."""
    vocab = without_tensors(header)
    return vocab if len(vocab) <= VOCAB_BYTES_MAX else None
