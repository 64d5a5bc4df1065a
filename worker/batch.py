"""A step's rows as llama.cpp wants them: a `llama_batch` over numpy memory. Must not know of contexts or samplers."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from worker.engine import Step, StepFailed


class Batch:
    """A `llama_batch` over numpy memory, so that whole rows are filled by slice."""

    def __init__(self, tokens: int) -> None:
        self.limit = tokens
        self._token = np.zeros(tokens, np.int32)
        self._pos = np.zeros(tokens, np.int32)
        self._seq = np.zeros(tokens, np.int32)
        self._logits = np.zeros(tokens, np.int8)
        one_each = np.ones(tokens, np.int32)
        # llama.cpp wants a pointer for each token to the list of its sequences; ours are lists of one, in `_seq`.
        pointers = self._seq.ctypes.data + np.arange(tokens, dtype=np.uint64) * 4
        self._keep = (one_each, pointers)
        self.native = llama_cpp.llama_batch(
            n_tokens=0,
            token=_pointer(self._token, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._pos, ctypes.c_int32),
            n_seq_id=_pointer(one_each, ctypes.c_int32),
            seq_id=ctypes.cast(pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=_pointer(self._logits, ctypes.c_int8),
        )

    def fill(self, step: Step) -> list[tuple[int, int]]:
        """Lay the step's rows in; (slot, index in the batch) for each that wants logits, in batch order."""
        at = 0
        wanted: list[tuple[int, int]] = []
        # Where slots have cells of their own, llama.cpp decodes neighbours together, in the order of the batch.
        for row in sorted(step.rows, key=lambda row: row.slot):
            end = at + len(row.tokens)
            if end > self.limit:
                raise StepFailed(f"a batch of more than {self.limit} tokens")
            self._token[at:end] = row.tokens
            self._pos[at:end] = range(row.start, row.start + len(row.tokens))
            self._seq[at:end] = row.slot
            self._logits[at:end] = 0
            if row.sample:
                self._logits[end - 1] = 1
                wanted.append((row.slot, end - 1))
            at = end
        self.native.n_tokens = at
        return wanted


def _pointer(array: npt.NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
