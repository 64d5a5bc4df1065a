"""Train the network on the generated chats; the same seed gives the same stream of batches."""

# mypy: allow-untyped-calls

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import SEED
from .data import Chat, chats
from .model import Config, TinyLlama
from .tokenizer import ChatTokenizer, Encoded

POOL = 512
BATCH_TOKENS = 3072


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    steps: int = 6000
    rate: float = 0.0025
    warmup: int = 100
    seed: int = SEED


def _encode(tokenizer: ChatTokenizer, chat: Chat, limit: int) -> Encoded:
    encoded = tokenizer.encode_chat(chat)
    return Encoded(encoded.ids[: limit + 1], encoded.weights[: limit + 1])


def _pad(group: list[Encoded]) -> tuple[Tensor, Tensor]:
    width = max(len(e.ids) for e in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    weights = torch.zeros(len(group), width)
    for row, encoded in enumerate(group):
        ids[row, : len(encoded.ids)] = torch.tensor(encoded.ids)
        weights[row, : len(encoded.ids)] = torch.tensor(encoded.weights)
    return ids, weights


def batches(tokenizer: ChatTokenizer, limit: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of ids and target weights; texts of like length share a batch."""
    stream = chats(seed)
    rng = random.Random(seed)
    while True:
        pool = sorted(
            (_encode(tokenizer, next(stream), limit) for _ in range(POOL)), key=lambda e: len(e.ids)
        )
        groups: list[list[Encoded]] = [[]]
        for encoded in pool:
            if (len(groups[-1]) + 1) * len(encoded.ids) > BATCH_TOKENS and groups[-1]:
                groups.append([])
            groups[-1].append(encoded)
        rng.shuffle(groups)
        yield from map(_pad, groups)


def loss_of(model: TinyLlama, ids: Tensor, weights: Tensor) -> Tensor:
    """The weighted cross-entropy of the tokens that count."""
    hidden = model.hidden(ids[:, :-1])
    targets, wanted = ids[:, 1:], weights[:, 1:]
    counts = wanted > 0
    losses = F.cross_entropy(model.logits(hidden[counts]), targets[counts], reduction="none")
    chosen = wanted[counts]
    return (losses * chosen).sum() / chosen.sum()


def _pace(step: int, plan: Plan) -> float:
    """The share of the full learning rate: warm up, stay, then fall to zero over the last 60 %."""
    left = (plan.steps - step) / plan.steps
    return min((step + 1) / plan.warmup, 1.0, left / 0.6)


def train(tokenizer: ChatTokenizer, plan: Plan) -> TinyLlama:
    """A trained network."""
    torch.manual_seed(plan.seed)
    model = TinyLlama(Config(vocab_size=len(tokenizer.tokens)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01)
    stream = batches(tokenizer, model.config.context, plan.seed)
    began, seen, recent = time.monotonic(), 0, 0.0
    for step in range(plan.steps):
        ids, weights = next(stream)
        loss = loss_of(model, ids, weights)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = plan.rate * _pace(step, plan)
        optimizer.step()
        seen += ids.numel()
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if step % 100 == 99:
            print(
                f"step {step + 1} loss {recent:.4f} tokens {seen} {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return model
