"""How the next token is drawn: one native sampler for each job. Must not know of batches or scheduling."""

from __future__ import annotations

from typing import Any

import llama_cpp

from herder.brief import Sampling

SEED_RANDOM = 0xFFFFFFFF
"""llama.cpp takes this seed to mean a random one, which no re-run would repeat."""


class NativeSampler:
    """One job's sampler; made afresh for each attempt, so that the same seed draws the same tokens again."""

    def __init__(self, sampling: Sampling) -> None:
        self.greedy = sampling.temperature <= 0
        self._chain: Any = None
        if self.greedy:
            return
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for sampler in (
            llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
            llama_cpp.llama_sampler_init_temp(sampling.temperature),
            llama_cpp.llama_sampler_init_dist(sampling.seed % SEED_RANDOM),
        ):
            llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, context: Any, index: int) -> int:
        """Draw from the logits of the batch's token `index`, and remember the draw."""
        assert self._chain is not None
        return int(llama_cpp.llama_sampler_sample(self._chain, context, index))

    def close(self) -> None:
        """Free it."""
        if self._chain is not None:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
