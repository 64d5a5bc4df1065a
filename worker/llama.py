"""llama.cpp as an engine: one KV cache, many sequences in one `llama_decode`, a sampler for each slot.

With `batch` and `parameters` the only file that imports llama_cpp. Must not know of jobs, Redis or scheduling.
Native code may abort the process at any time; whatever can be checked before a native call is checked.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from pathlib import Path

# Read by OpenMP once, when the library loads. Threads that spin for as long as they wait cost a factor of three where
# cores are shared; threads that never do are woken for each of the hundreds of parts of a step, which can take longer
# than the part. So each looks a thousand times first; see docs/decisions/0013-spin.md.
if os.environ.setdefault("OMP_WAIT_POLICY", "passive").lower() == "passive":
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Before it aborts, ggml forks a debugger and waits for it; where two threads fail at once, the two forks wait for each
# other, and a process that should have died hangs.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import llama_cpp
import numpy as np

from herder.brief import Sampling
from herder.reasoning import MARKS_BYTES
from herder.settings import cores
from worker import parameters
from worker.batch import Batch
from worker.engine import (
    Drawn,
    EngineError,
    EngineFacts,
    KvFull,
    ModelUnusable,
    Opening,
    Row,
    Step,
    StepFailed,
)
from worker.grammar import Grammars
from worker.sampling import Logits, Sampler, Samplers
from worker.tuning import Tuning

UNIFIED_SLOTS_MAX = 4
"""Up to so many slots share one cache unless the settings say otherwise: with more, attention over the cells of all of
them costs each more than shared beginnings usually save."""
KV_TOKENS_MAX = 2**31 - 1
ERROR_LEVEL = 4
CONTEXT_DEFAULT_MAX = 4096

_log_tail: deque[str] = deque(maxlen=8)
"""The last errors that llama.cpp has logged; they say why a model did not load."""


def _log(level: int, text: bytes, _user_data: object) -> None:
    if level == ERROR_LEVEL:
        _log_tail.append(text.decode("utf-8", "replace").strip())


_native_log = llama_cpp.llama_log_callback(_log)  # native code keeps the pointer, so it must not be collected


class LlamaEngine:
    """A model loaded from a GGUF file, with room for `slots` jobs of up to `context` tokens each.

    `context` 0 takes the model's own, at most 4096; `threads` 0 takes every core; `kv_tokens` 0 is slots × context.
    Raises ModelUnusable with what to do where llama.cpp cannot load the model, or not so.
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
        tuning: Tuning = Tuning(),  # noqa: B008 (frozen)
    ) -> None:
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(_native_log, ctypes.c_void_p(0))
        _log_tail.clear()
        self._path, self._tuning = path, tuning
        parameters.check_gpus(gpu_layers, tuning)
        self._model = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), parameters.of_model(gpu_layers, tuning)
        )
        if not self._model:
            raise ModelUnusable(
                f"{path}: llama.cpp cannot load it ({_why()}); try another GGUF of this model"
                + ("" if gpu_layers == 0 else ", or fewer --gpu-layers")
            )
        if not llama_cpp.llama_model_has_decoder(self._model) or llama_cpp.llama_model_has_encoder(
            self._model
        ):
            raise ModelUnusable(
                f"{path}: not a text generation model (it has no decoder, or needs an encoder)"
            )
        if context == 0:
            context = min(llama_cpp.llama_model_n_ctx_train(self._model), CONTEXT_DEFAULT_MAX)
        threads = threads or cores()
        self._open_context(slots, kv_tokens or slots * context, threads)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._pieces, longest = self._read_pieces()
        self._facts = self._describe(slots, context, longest)
        self._batch = Batch(self._facts.batch_tokens)
        self._samplers = Samplers(threads)
        self._ends = tuple(token for token in range(len(self._pieces)) if self.ends(token))
        self._grammars = Grammars(self._pieces, self._ends)
        self._suspect = False

    def _open_context(self, slots: int, kv_tokens: int, threads: int) -> None:
        if kv_tokens > KV_TOKENS_MAX:
            raise ModelUnusable(
                f"{self._path}: a KV cache of {kv_tokens} tokens is more than llama.cpp counts; lower --slots or --ctx"
            )
        wanted = self._tuning.kv_unified
        self._unified = slots <= UNIFIED_SLOTS_MAX if wanted == "auto" else wanted == "on"
        # Slots that only keep need cells of others.
        sequences = parameters.sequences_for(slots) if self._trimmable() and self._unified else slots
        params = parameters.of_context(
            self._tuning, sequences=sequences, unified=self._unified, kv_tokens=kv_tokens, threads=threads
        )
        _log_tail.clear()
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            others = self._tuning.unusual
            raise ModelUnusable(
                f"{self._path}: no {slots} slots with a KV cache of {kv_tokens} tokens ({_why(1)}); "
                "lower --slots or --ctx" + (f", or change {others}" if others else "")
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
            # Marks of reasoning are text, whatever the vocabulary calls them: answers are parted there.
            shown = not hidden or buffer.raw[:length] in MARKS_BYTES
            pieces.append(buffer.raw[:length] if shown else b"")
            longest = max(longest, length)
        return pieces, longest

    def _describe(self, slots: int, context: int, longest: int) -> EngineFacts:
        template = llama_cpp.llama_model_chat_template(self._model, None)
        description = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._model, description, len(description))
        return EngineFacts(
            slots=slots,
            sequences=llama_cpp.llama_n_seq_max(self._context),
            kv_tokens=llama_cpp.llama_n_ctx(self._context),
            batch_tokens=llama_cpp.llama_n_batch(self._context),
            # Each slot has a part of its own where the cache is not unified.
            context=context if self._unified else min(context, llama_cpp.llama_n_ctx_seq(self._context)),
            trimmable=self._trimmable(),
            shares_cells=self._trimmable() and self._unified,
            vocab_size=len(self._pieces),
            max_piece_bytes=longest,
            template=template.decode("utf-8", "replace") if template else None,
            bos_token=self._token_text(llama_cpp.llama_vocab_bos(self._vocab)),
            eos_token=self._token_text(llama_cpp.llama_vocab_eos(self._vocab)),
            adds_bos=bool(llama_cpp.llama_vocab_get_add_bos(self._vocab)),
            description=description.value.decode("utf-8", "replace"),
        )

    def _trimmable(self) -> bool:
        """A recurrent state is one cell; cells that have left a sliding window are overwritten unasked."""
        model = self._model
        recurrent = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model)
        return not recurrent and llama_cpp.llama_model_n_swa(model) == 0

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

    def ready(self, schema: str, tokens: int) -> str | None:
        """See Engine."""
        return self._grammars.ready(schema, tokens)

    def step(self, step: Step) -> dict[int, Drawn]:
        """See Engine."""
        for slot, keep in step.trims:
            llama_cpp.llama_memory_seq_rm(self._memory, slot, keep, -1)
        if self._suspect and self._empty():
            # With what is in the cells: NaN outlives its sequence.
            llama_cpp.llama_memory_clear(self._memory, True)
            self._suspect = False
        for source, target, length in step.copies:
            # Where each slot has cells of its own llama.cpp copies all of them, and aborts where it is asked for less.
            end = length if self._unified else -1
            llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, end)
            llama_cpp.llama_memory_seq_rm(self._memory, target, length, -1)
        for opening in step.opens:
            mask = self._grammars.open(opening.slot, opening.schema, opening.tokens)
            sampler = Sampler(opening.sampling, opening.prompt, ends=self._ends, mask=mask)
            self._samplers.open(opening.slot, sampler)
        wanted = self._batch.fill(step)
        # Tour 5/8: one llama_decode for every sequence this worker answers; ctypes lets go of the GIL meanwhile.
        # No abort callback: it would take the GIL at every node of the graph, and a step is short: the scheduler gives
        # prompts no more tokens than fit its time. A cancel is heard between two steps, a second stop ends the process.
        code = llama_cpp.llama_decode(self._context, self._batch.native)
        if code == 1:
            raise KvFull("llama_decode found no room in the KV cache")
        if code != 0:
            raise StepFailed(f"llama_decode failed with code {code} ({_why()})")
        return self._sample(wanted)

    def _sample(self, wanted: list[tuple[int, int]]) -> dict[int, Drawn]:
        if not wanted:
            return {}
        # One row for each wanted token, in batch order.
        pointer = llama_cpp.llama_get_logits(self._context)
        logits = np.ctypeslib.as_array(pointer, shape=(len(wanted), len(self._pieces)))
        drawn = self._draw([(slot, logits[i]) for i, (slot, _) in enumerate(wanted)])
        self._suspect = self._suspect or any(each.useless for each in drawn.values())
        return self._grammars.taken(drawn)

    def _empty(self) -> bool:
        """Whether no sequence has a cell."""
        slots = range(self._facts.sequences)
        return all(llama_cpp.llama_memory_seq_pos_max(self._memory, slot) < 0 for slot in slots)

    def _draw(self, rows: list[tuple[int, Logits]]) -> dict[int, Drawn]:
        """The next token of each slot from its row of logits."""
        return self._samplers.draw(rows)

    def warm(self) -> None:
        """Decode a token and forget it: weights come from the disk and buffers are made while nobody waits.

        Raises ModelUnusable where nothing can be drawn from what comes out: so it would be for every job.
        """
        row = Row(0, 0, tuple(self.tokenize("a")[:1]) or (0,), sample=True)
        try:
            drawn = self.step(Step((row,), opens=(Opening(0, Sampling()),)))[0]
        except EngineError as error:
            raise ModelUnusable(f"{self._path}: {error}; try another GGUF of this model") from error
        if drawn.useless:
            why = "it computes no numbers (NaN or infinite): its weights are damaged"
            raise ModelUnusable(f"{self._path}: {why}; fetch it again or name another GGUF of this model")
        llama_cpp.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """See Engine."""
        self._samplers.close()
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


def _why(most: int = 8) -> str:
    """The errors that llama.cpp has logged, the first ones: what follows from an error is logged after it."""
    return " / ".join(list(_log_tail)[:most])[-400:] or "it gave no reason"
