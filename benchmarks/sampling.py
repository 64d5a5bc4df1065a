"""What drawing a token costs, in ms, beside llama.cpp's own chain of samplers on the same logits. No model is needed.

1 and 64 sequences, 32k and 128k vocabularies; greedy, and temperature with top_p and top_k, and with top_p alone, whose
candidates are the whole vocabulary. The logits are peaked as a language model's are.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from benchmarks.report import Report
from herder.brief import Sampling
from worker.sampling import Sampler, Samplers

VOCABULARIES = {"32k": 32_000, "128k": 128_256}
SEQUENCES = (1, 64)
WAYS = {
    "greedy": Sampling(),
    "top_p+top_k": Sampling(temperature=0.8, top_p=0.95, top_k=40),
    "top_p": Sampling(temperature=0.8, top_p=0.95),
}
HEAD = 64
"""Tokens that stand out from the rest, which has about a thousandth of the probability."""
LEAST_S = 0.2

Rows = npt.NDArray[np.float32]


def logits(vocabulary: int) -> Rows:
    """A row for each of 64 sequences."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((max(SEQUENCES), vocabulary), np.float32) * np.float32(2)
    for row in rows:
        row[rng.choice(vocabulary, HEAD, replace=False)] += np.linspace(19, 9, HEAD, dtype=np.float32)
    return rows


class NativeChain:
    """llama.cpp's samplers in llama.cpp's order, on an array of candidates made as `llama_sampler_sample` makes it."""

    def __init__(self, how: Sampling, vocabulary: int) -> None:
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if how.temperature == 0:
            parts = [llama_cpp.llama_sampler_init_greedy()]
        else:
            parts = [llama_cpp.llama_sampler_init_top_k(how.top_k)] if how.top_k else []
            parts += [
                llama_cpp.llama_sampler_init_top_p(how.top_p, 1),
                llama_cpp.llama_sampler_init_temp(how.temperature),
                llama_cpp.llama_sampler_init_dist(how.seed),
            ]
        for part in parts:
            llama_cpp.llama_sampler_chain_add(self._chain, part)
        self._ids = np.arange(vocabulary, dtype=np.int32)
        kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._candidates = np.zeros(vocabulary, kind)
        self._array = llama_cpp.llama_token_data_array()

    def draw(self, row: Rows) -> int:
        """The next token."""
        self._candidates["id"] = self._ids
        self._candidates["logit"] = row
        array: Any = self._array
        array.data = self._candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        array.size, array.selected, array.sorted = len(row), -1, False
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def close(self) -> None:
        """Free it."""
        llama_cpp.llama_sampler_free(self._chain)


def ms_a_token(draw: Callable[[], object], tokens: int) -> float:
    """Of calls that draw so many tokens each, until LEAST_S has passed."""
    draw()
    began, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < LEAST_S or calls < 3:
        draw()
        calls += 1
    return 1000 * elapsed / (calls * tokens)


def compare(report: Report, way: str, size: str, rows: Rows) -> None:
    """One round of one way and vocabulary, at each number of sequences."""
    how, everyone = WAYS[way], list(enumerate(rows))
    samplers = Samplers(os.cpu_count() or 1)
    chain = NativeChain(how, rows.shape[1])
    try:
        for slot, _ in everyone:
            samplers.open(slot, Sampler(how))
        theirs = ms_a_token(lambda: [chain.draw(row) for row in rows[:8]], 8)
        for sequences in SEQUENCES:
            steps = [everyone[i : i + sequences] for i in range(0, 8, sequences)]
            drawn = sum(map(len, steps))
            ours = ms_a_token(lambda steps=steps: [samplers.draw(step) for step in steps], drawn)  # type: ignore[misc]
            report.add(f"{way} {size} x{sequences}", ours)
            report.add(f"{way} {size} x{sequences} ÷ peer", ours / theirs)
        report.add(f"{way} {size} llama.cpp", theirs)
    finally:
        samplers.close()
        chain.close()


async def run(report: Report, rounds: int) -> None:
    """Every way at every size; a ratio is ours ÷ llama.cpp's of the same round, so below 1 is faster."""
    for size, vocabulary in VOCABULARIES.items():
        rows = logits(vocabulary)
        for _ in range(rounds):
            for way in WAYS:
                compare(report, way, size, rows)
    report.note(
        "ms a token; x64: 64 sequences in one step, in as many threads as there are cores (8 at most)"
    )
