"""The engine without a ring, in a process of its own: our scheduler and engine, or a bare loop over `llama_decode`.

`python -m benchmarks.loops ours|bare JSON` with `slots`, `context`, `tokens` and `prompts` (and, for the bare loop,
`unified`) prints the tokens a second of answering all prompts, prefill included. Must not know of HTTP or Redis.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys
import time
from collections import deque
from typing import Any

import numpy as np

# Before llama_cpp is loaded: it sets the OpenMP policy, which is read only once.
from benchmarks.servers import GPU_LAYERS, KV_UNIFIED, MODEL, THREADS  # isort: skip
import llama_cpp

from benchmarks.models import model
from herder.brief import Brief
from herder.pricing import Terms
from herder.protocol import Lease
from worker.llama import LlamaEngine
from worker.scheduler import Scheduler
from worker.sequence import Sequence
from worker.tuning import Tuning

BATCH_TOKENS = 2048
WARM_UP = "A few words to begin with."


async def loop_tokens_per_s(kind: str, **given: object) -> float:
    """Run one in a child process."""
    command = [sys.executable, "-m", "benchmarks.loops", kind, json.dumps(given)]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await child.communicate()
    assert child.returncode == 0, f"the loop {kind!r} ended with {child.returncode}"
    return float(json.loads(told.decode().strip().splitlines()[-1]))


def ours(given: dict[str, Any]) -> float:
    """Every prompt through `Scheduler` and `LlamaEngine`, as many at once as there are slots."""
    slots, context = given["slots"], given["context"]
    engine = LlamaEngine(
        model(MODEL), slots=slots, context=context, threads=THREADS, gpu_layers=GPU_LAYERS,
        tuning=Tuning(kv_unified=KV_UNIFIED),
    )  # fmt: skip
    scheduler = Scheduler(engine.facts)

    def answered(prompts: list[str], tokens: int) -> int:
        waiting = deque(enumerate(prompts))
        produced = 0
        while True:
            while waiting and scheduler.free_slots:
                number, prompt = waiting.popleft()
                lease = Lease(f"job_{number}", 1, "payer", Brief(prompt), tokens, Terms(0, 0, 0, 0))
                scheduler.admit(Sequence(lease, engine.tokenize(prompt)))
            step = scheduler.plan()
            if step is None:
                return produced
            began = time.monotonic()
            drawn = engine.step(step)
            elapsed_ms = (time.monotonic() - began) * 1000
            told = scheduler.apply(step, drawn, elapsed_ms, engine.piece, engine.ends)
            produced += sum(sequence.produced for sequence in told if sequence.ended)

    answered([WARM_UP] * slots, 4)
    began = time.monotonic()
    produced = answered(given["prompts"], given["tokens"])
    assert produced == len(given["prompts"]) * given["tokens"], produced
    return produced / (time.monotonic() - began)


_quiet = llama_cpp.llama_log_callback(lambda _level, _text, _user: None)


class Bare:
    """A context and a batch, as plainly as they can be used: one sequence a prompt, all from the first step on."""

    def __init__(self, sequences: int, context: int, unified: bool) -> None:
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        loading = llama_cpp.llama_model_default_params()
        loading.n_gpu_layers = GPU_LAYERS if GPU_LAYERS >= 0 else 999
        self.model = llama_cpp.llama_model_load_from_file(str(model(MODEL)).encode(), loading)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = sequences * context, BATCH_TOKENS, sequences
        params.n_threads = params.n_threads_batch = THREADS
        params.kv_unified, params.no_perf, params.n_outputs_max = unified, True, sequences
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)

    def tokenize(self, text: str) -> list[int]:
        """A prompt's tokens."""
        raw = text.encode()
        tokens = (llama_cpp.llama_token * (len(raw) + 16))()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), tokens, len(tokens), True, True)
        return list(tokens[:count])

    def add(self, sequence: int, position: int, token: int, wanted: bool) -> None:
        """One more row."""
        batch, row = self.batch, self.batch.n_tokens
        batch.token[row], batch.pos[row], batch.logits[row] = token, position, wanted
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
        batch.n_tokens = row + 1

    def decode(self, wanted: int) -> list[int]:
        """Decode the rows; the likeliest token after each of the `wanted` rows, in their order."""
        code = llama_cpp.llama_decode(self.context, self.batch)
        assert code == 0, f"llama_decode: {code}"
        self.batch.n_tokens = 0
        if not wanted:
            return []
        logits = llama_cpp.llama_get_logits(self.context)
        return [int(t) for t in np.ctypeslib.as_array(logits, (wanted, self.vocab_size)).argmax(axis=1)]

    def answer(self, prompts: list[list[int]], tokens: int) -> None:
        """All of them at once, from an empty cache."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        newest: list[int] = []
        wanted = 0
        for sequence, prompt in enumerate(prompts):
            for position, token in enumerate(prompt):
                last = position == len(prompt) - 1
                self.add(sequence, position, token, last)
                wanted += last
                if self.batch.n_tokens == BATCH_TOKENS:
                    newest += self.decode(wanted)
                    wanted = 0
        if self.batch.n_tokens:
            newest += self.decode(wanted)
        for step in range(tokens - 1):
            for sequence, token in enumerate(newest):
                self.add(sequence, len(prompts[sequence]) + step, token, True)
            newest = self.decode(len(newest))
        assert len(newest) == len(prompts)


def bare(given: dict[str, Any]) -> float:
    """As many sequences as prompts, none of which ends before the others."""
    loop = Bare(given["slots"], given["context"], given["unified"])
    prompts = [loop.tokenize(prompt) for prompt in given["prompts"]]
    assert len(prompts) == given["slots"]
    loop.answer([loop.tokenize(WARM_UP)] * given["slots"], 4)
    began = time.monotonic()
    loop.answer(prompts, given["tokens"])
    return len(prompts) * int(given["tokens"]) / (time.monotonic() - began)


if __name__ == "__main__":
    print(json.dumps({"ours": ours, "bare": bare}[sys.argv[1]](json.loads(sys.argv[2]))))
