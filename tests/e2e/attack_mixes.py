"""What is legal alone, at random together: options at their limits, forms, stops, the edge of the context."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tests.e2e.attacks import CONTEXT, CONTEXT_ERROR, INVALID, SCHEMA_ERROR, SUCCEEDED, Attack, job
from tests.random_schemas import random_schema

COUNT = 80
CONTEXT_TOKENS = 1_024
VOCAB = 1_024
OPTIONS_MAX = 8
PIECES = ("x", "日", "<|end|>", "a ", "😀", "\u202e", "\n", "00", "<|user|>", "\u0301", " the")

_OPTIONS: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 5e-324, 1, 2), "top_p": (1e-9, 0.5, 1), "top_k": (0, 1, 1_000_000), "min_p": (0, 1),
    "n": (1, 2, 4),
    "typical_p": (1e-9, 0.5, 1), "repeat_penalty": (0.1, 1, 10), "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "penalty_tokens": (0, 1, 4_096), "seed": (0, 2**32 - 1), "logprobs": (0, 1, 20), "ignore_eos": (True,),
    "share_prefix": (True,), "multiplier": (1, 1.001, 3), "stop": (" ", ["a", "e"], ["\ufffd"], ["}"]), "raw": (True,),
    "template": ("llama-2", "chatml"), "system": ("Be kind.", "<|end|>"),
}  # fmt: skip


def attacks(seed: int = 0) -> Iterator[Attack]:
    """So many, the same for a seed. Each must end in order, whether it is answered or not."""
    rng = random.Random(seed)
    becomes = (SUCCEEDED, SCHEMA_ERROR, INVALID, CONTEXT, CONTEXT_ERROR, "402 insufficient_funds")
    for number in range(COUNT):
        fields = _mix(rng)
        yield job(f"mix {seed}.{number}", *becomes, check=_in_order, **fields)


def _mix(rng: random.Random) -> dict[str, Any]:
    fields = {
        name: rng.choice(_OPTIONS[name]) for name in rng.sample(list(_OPTIONS), rng.randint(1, OPTIONS_MAX))
    }
    pieces = rng.choices(PIECES, k=rng.choice((1, 5, 100, 300)))
    fields["prompt"] = "".join(pieces)
    if rng.random() < 0.3:  # its tokens and a few more, or a few too many
        fields["prompt"] = "x" * (CONTEXT_TOKENS - rng.randint(1, 60))
    fields["tokens"] = rng.choice((1, 2, 16, 40, 60))
    if rng.random() < 0.2:
        fields["logit_bias"] = {
            str(rng.randrange(VOCAB)): rng.choice((-100, 100, 0.5)) for _ in range(rng.choice((1, 256)))
        }
    if rng.random() < 0.3:
        fields.pop("stop", None)
        schema = random_schema(rng.randrange(10**6))
        fields["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    return fields


def _in_order(shown: Any) -> object:
    if "captured" not in shown:
        return True  # it was refused
    if shown["status"] == "failed":
        return shown["captured"] == 0 and shown["refunded"] == shown["fee"]
    result = shown["result"]
    counted = sum(choice["completion_tokens"] for choice in result["choices"])
    assert counted == result["completion_tokens"] <= shown["tokens"] * shown["n"]
    return len(result["choices"]) == shown["n"] and shown["captured"] + shown["refunded"] == shown["fee"]
