"""llama.cpp as an engine: one unified KV cache, many sequences in one `llama_decode`, a sampler for each slot.

The only file that imports llama_cpp. Must not know of jobs, Redis or scheduling. Native code may
abort the process at any time; whatever can be checked before a native call is checked.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from pathlib import Path
from typing import Any

# Read by OpenMP once, when the library loads: threads that spin while they wait cost a factor of three where cores
# are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import llama_cpp
import numpy as np
import numpy.typing as npt

from herder.protocol import Sampling
from worker.engine import EngineFacts, KvFull, ModelUnusable, Step, StepFailed

BATCH_TOKENS = 2048
ERROR_LEVEL = 4
CONTEXT_DEFAULT_MAX = 4096

_log_tail: deque[str] = deque(maxlen=8)
"""The last errors that llama.cpp has logged; they say why a model did not load."""


def _log(level: int, text: bytes, _user_data: object) -> None:
    if level == ERROR_LEVEL:
        _log_tail.append(text.decode("utf-8", "replace").strip())


_native_log = llama_cpp.llama_log_callback(_log)  # native code keeps the pointer, so it must not be collected


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
        for row in step.rows:
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


def _pointer(array: npt.NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


class LlamaEngine:
    """A model loaded from a GGUF file, with room for `slots` jobs of up to `context` tokens each.

    `context` 0 takes the model's own, at most 4096; `threads` 0 takes every core; `kv_tokens` 0 is slots × context.
    """

    def __init__(
        self,
        path: Path,
        *,
        slots: int,
        context: int = 0,
        threads: int = 0,
        gpu_layers: int = 0,
        kv_tokens: int = 0,
    ) -> None:
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(_native_log, ctypes.c_void_p(0))
        _log_tail.clear()
        self._path = path
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ModelUnusable(
                f"{path}: llama.cpp cannot load it ({_why()}); try another GGUF of this model"
            )
        if not llama_cpp.llama_model_has_decoder(self._model) or llama_cpp.llama_model_has_encoder(
            self._model
        ):
            raise ModelUnusable(
                f"{path}: not a text generation model (it has no decoder, or needs an encoder)"
            )
        if context == 0:
            context = min(llama_cpp.llama_model_n_ctx_train(self._model), CONTEXT_DEFAULT_MAX)
        self._open_context(slots, kv_tokens or slots * context, threads or os.cpu_count() or 1)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._pieces, longest = self._read_pieces()
        self._facts = self._describe(slots, context, longest)
        self._batch = Batch(self._facts.batch_tokens)
        self._samplers: dict[int, NativeSampler] = {}

    def _open_context(self, slots: int, kv_tokens: int, threads: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = kv_tokens
        params.n_batch = BATCH_TOKENS
        params.n_seq_max = slots
        # One token a sequence is sampled: without this, room for the logits of a whole batch is kept.
        params.n_outputs_max = slots
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise ModelUnusable(
                f"{self._path}: no memory for {slots} slots and a KV cache of {kv_tokens} tokens ({_why()}); "
                "lower --slots or --ctx"
            )

    def _read_pieces(self) -> tuple[list[bytes], int]:
        """The bytes of every token as sampled text, and the length of the longest token as prompt text."""
        buffer = ctypes.create_string_buffer(1024)
        pieces: list[bytes] = []
        longest = 1
        for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab)):
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
            if length < 0:
                buffer = ctypes.create_string_buffer(-length)
                length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
            hidden = llama_cpp.llama_vocab_is_control(self._vocab, token)
            pieces.append(b"" if hidden else buffer.raw[:length])
            longest = max(longest, length)
        return pieces, longest

    def _describe(self, slots: int, context: int, longest: int) -> EngineFacts:
        template = llama_cpp.llama_model_chat_template(self._model, None)
        description = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._model, description, len(description))
        recurrent = llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(
            self._model
        )
        return EngineFacts(
            slots=slots,
            kv_tokens=llama_cpp.llama_n_ctx(self._context),
            batch_tokens=llama_cpp.llama_n_batch(self._context),
            context=context,
            trimmable=not recurrent,
            vocab_size=len(self._pieces),
            max_piece_bytes=longest,
            template=template.decode("utf-8", "replace") if template else None,
            bos_token=self._token_text(llama_cpp.llama_vocab_bos(self._vocab)),
            eos_token=self._token_text(llama_cpp.llama_vocab_eos(self._vocab)),
            adds_bos=bool(llama_cpp.llama_vocab_get_add_bos(self._vocab)),
            description=description.value.decode("utf-8", "replace"),
        )

    def _token_text(self, token: int) -> str:
        if token < 0:
            return ""
        text = llama_cpp.llama_vocab_get_text(self._vocab, token)
        return bytes(text).decode("utf-8", "replace") if text else ""

    @property
    def facts(self) -> EngineFacts:
        """What is fixed once the model is loaded."""
        return self._facts

    def tokenize(self, text: str) -> list[int]:
        """See Engine. A template that writes the BOS itself does not get a second one."""
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 16
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), tokens, room, True, True)
        if count < 0:
            room = -count
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), tokens, room, True, True)
        result = list(tokens[: max(count, 0)])
        bos = llama_cpp.llama_vocab_bos(self._vocab)
        if self._facts.adds_bos and result[:2] == [bos, bos]:
            del result[0]
        return result

    def piece(self, token: int) -> bytes:
        """See Engine."""
        return self._pieces[token]

    def ends(self, token: int) -> bool:
        """See Engine."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def step(self, step: Step) -> dict[int, int]:
        """See Engine."""
        for slot, keep in step.trims:
            llama_cpp.llama_memory_seq_rm(self._memory, slot, keep, -1)
        for slot, sampling in step.opens:
            self._close_sampler(slot)
            self._samplers[slot] = NativeSampler(sampling)
        wanted = self._batch.fill(step)
        # Tour 5/8: one llama_decode for every sequence this worker answers; ctypes lets go of the GIL meanwhile.
        code = llama_cpp.llama_decode(self._context, self._batch.native)
        if code == 1:
            raise KvFull("llama_decode found no room in the KV cache")
        if code != 0:
            raise StepFailed(f"llama_decode failed with code {code} ({_why()})")
        return self._sample(wanted)

    def _sample(self, wanted: list[tuple[int, int]]) -> dict[int, int]:
        if not wanted:
            return {}
        # One row for each wanted token, in batch order.
        pointer = llama_cpp.llama_get_logits(self._context)
        logits = np.ctypeslib.as_array(pointer, shape=(len(wanted), len(self._pieces)))
        return {slot: self._choose(slot, index, logits[i]) for i, (slot, index) in enumerate(wanted)}

    def _choose(self, slot: int, index: int, logits: npt.NDArray[np.float32]) -> int:
        """The slot's next token; `index` is its row's place in the batch, `logits` that row."""
        sampler = self._samplers[slot]
        # Greedy needs no candidate list of the whole vocabulary.
        token = int(logits.argmax()) if sampler.greedy else sampler.sample(self._context, index)
        if not np.isfinite(logits[token]):
            raise StepFailed("the model computed no usable logits (NaN or infinite)")
        return token

    def _close_sampler(self, slot: int) -> None:
        sampler = self._samplers.pop(slot, None)
        if sampler is not None:
            sampler.close()

    def close(self) -> None:
        """See Engine."""
        for slot in list(self._samplers):
            self._close_sampler(slot)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


def _why() -> str:
    return " / ".join(_log_tail)[-400:] or "it gave no reason"
