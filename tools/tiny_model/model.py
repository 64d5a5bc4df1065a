"""A llama-architecture language model: RMSNorm, rotary positions, SwiGLU, tied embeddings."""

# mypy: allow-subclassing-any

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """The shape of the network."""

    vocab_size: int
    dim: int = 192
    layers: int = 4
    heads: int = 6
    hidden: int = 512
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    context: int = 1024

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


def rope_table(config: Config) -> tuple[Tensor, Tensor]:
    """Cosines and sines per position and per pair of neighbouring channels."""
    exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    angles = torch.outer(torch.arange(config.context).float(), config.rope_base**-exponents)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring channels (2i, 2i+1) together: the order llama.cpp uses for llama models."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).type_as(x)


class Block(nn.Module):
    """One transformer layer."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, hidden = config.dim, config.hidden
        self.heads = config.heads
        self.attn_norm = nn.RMSNorm(dim, eps=config.norm_eps)
        self.attn_q = nn.Linear(dim, dim, bias=False)
        self.attn_k = nn.Linear(dim, dim, bias=False)
        self.attn_v = nn.Linear(dim, dim, bias=False)
        self.attn_output = nn.Linear(dim, dim, bias=False)
        self.ffn_norm = nn.RMSNorm(dim, eps=config.norm_eps)
        self.ffn_gate = nn.Linear(dim, hidden, bias=False)
        self.ffn_up = nn.Linear(dim, hidden, bias=False)
        self.ffn_down = nn.Linear(hidden, dim, bias=False)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, dim = x.shape
        shape = (batch, length, self.heads, dim // self.heads)
        q = rotate(self.attn_q(x).view(shape).transpose(1, 2), cos, sin)
        k = rotate(self.attn_k(x).view(shape).transpose(1, 2), cos, sin)
        v = self.attn_v(x).view(shape).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.attn_output(mixed.transpose(1, 2).reshape(batch, length, dim))
        return out

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attend(self.attn_norm(x), cos, sin)
        h = self.ffn_norm(x)
        out: Tensor = x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return out


class TinyLlama(nn.Module):
    """The whole network; parameter names are the GGUF tensor names."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab_size, config.dim)
        self.blk = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.output_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        cos, sin = rope_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = (
                    (2 * config.layers) ** -0.5 if name.endswith(("output.weight", "down.weight")) else 1.0
                )
                nn.init.normal_(parameter, std=0.04 * scale)

    def hidden(self, ids: Tensor) -> Tensor:
        """The normed state after the last layer, for every position."""
        x = self.token_embd(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin)
        out: Tensor = self.output_norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary; the embedding is also the output matrix."""
        return F.linear(hidden, self.token_embd.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))
