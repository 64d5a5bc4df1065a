"""Train the network on the generated chats; the same seed gives the same stream of batches."""

# mypy: allow-untyped-calls

import random
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import SEED
from .dialogues import Chat, chats
from .model import Config, TinyLlama
from .tokenizer import ChatTokenizer, Encoded

POOL = 512
BATCH_TOKENS = 2048
# Copying a name is learned on short chats first: (until this step, longest text in tokens).
COURSE = ((1300, 96), (2000, 256))
# The share of the full learning rate at some steps; straight lines between them.
PACE = ((0, 0.0), (100, 1.0), (1500, 1.0), (2200, 0.7), (3000, 0.0))
STEPS = PACE[-1][0]
FULL_RATE = 0.0025


def longest_text(step: int, context: int) -> int:
    """The longest text of a batch, in tokens."""
    return next((length for until, length in COURSE if step < until), context + 1)


def pace(step: int) -> float:
    """The share of the full learning rate in the step that leads to `step`."""
    return float(np.interp(step, [at for at, _ in PACE], [share for _, share in PACE]))


def _pad(group: list[Encoded]) -> tuple[Tensor, Tensor]:
    width = max(len(e.ids) for e in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    weights = torch.zeros(len(group), width)
    for row, encoded in enumerate(group):
        ids[row, : len(encoded.ids)] = torch.tensor(encoded.ids)
        weights[row, : len(encoded.ids)] = torch.tensor(encoded.weights)
    return ids, weights


def _pool(tokenizer: ChatTokenizer, stream: Iterator[Chat], longest: int) -> list[Encoded]:
    """Texts that are not too long, the short ones first."""
    encoded = (tokenizer.encode_chat(chat) for chat in stream)
    fitting = (one for one in encoded if len(one.ids) <= longest)
    return sorted(islice(fitting, POOL), key=lambda one: len(one.ids))


def batches(tokenizer: ChatTokenizer, context: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of ids and target weights; texts of like length share a batch."""
    stream, rng, step = chats(SEED), random.Random(SEED), 0
    while True:
        groups: list[list[Encoded]] = [[]]
        for encoded in _pool(tokenizer, stream, longest_text(step, context)):
            if (len(groups[-1]) + 1) * len(encoded.ids) > BATCH_TOKENS and groups[-1]:
                groups.append([])
            groups[-1].append(encoded)
        rng.shuffle(groups)
        step += len(groups)
        yield from map(_pad, groups)


def loss_of(model: TinyLlama, ids: Tensor, weights: Tensor) -> Tensor:
    """The weighted cross-entropy of the tokens that count."""
    hidden = model.hidden(ids[:, :-1])
    targets, wanted = ids[:, 1:], weights[:, 1:]
    counts = wanted > 0
    losses = F.cross_entropy(model.logits(hidden[counts]), targets[counts], reduction="none")
    chosen = wanted[counts]
    return (losses * chosen).sum() / chosen.sum()


def train(tokenizer: ChatTokenizer) -> TinyLlama:
    """A trained network."""
    torch.manual_seed(SEED)
    model = TinyLlama(Config(vocab_size=len(tokenizer.tokens)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=FULL_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    stream = batches(tokenizer, model.config.context)
    began, seen, recent = time.monotonic(), 0, 0.0
    for step in range(1, STEPS + 1):
        ids, weights = next(stream)
        loss = loss_of(model, ids, weights)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = FULL_RATE * pace(step)
        optimizer.step()
        seen += ids.numel()
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 100 == 0:
            print(
                f"step {step} loss {recent:.4f} tokens {seen} {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return model
