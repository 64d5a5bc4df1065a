"""A scripted engine for tests and benchmarks of the broker: no model, no native code, never a default anywhere.

Every byte is a token. The answer follows from the prompt alone, so a re-run repeats it, and a wrong position, a lost
row or a cache that holds something else is an assertion here. A prompt can ask for trouble: `[[say:TEXT]]` answers
TEXT and ends, `[[fail]]` fails the decode, `[[crash]]` kills the process, `[[hang]]` never returns, `[[seize]]` never
returns and keeps the GIL.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from hashlib import sha256
from itertools import count, islice

from herder.brief import Sampling
from worker.engine import Drawn, EngineFacts, Step, StepFailed

END = 256
WORDS = (
    "river stone light garden quiet morning paper winter engine signal copper forest window market".split()
)


class FakeCells:
    """A unified cache, cell by cell: one that several slots hold counts once, and is free when the last has left it."""

    def __init__(self, sequences: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(sequences)]
        self._cells: list[list[int]] = [[] for _ in range(sequences)]
        self._holders: dict[int, int] = {}
        self._numbers = count()

    @property
    def used(self) -> int:
        """Cells that are not free."""
        return len(self._holders)

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """New cells of one slot."""
        cells = list(islice(self._numbers, len(tokens)))
        self.tokens[slot].extend(tokens)
        self._cells[slot].extend(cells)
        self._holders.update(dict.fromkeys(cells, 1))

    def trim(self, slot: int, keep: int) -> None:
        """The slot leaves all but its first cells."""
        for cell in self._cells[slot][keep:]:
            self._holders[cell] -= 1
            if not self._holders[cell]:
                del self._holders[cell]
        del self.tokens[slot][keep:], self._cells[slot][keep:]

    def cells_of(self, slot: int) -> list[int]:
        """The numbers of the slot's cells; equal ones are shared."""
        return list(self._cells[slot])

    def copy(self, source: int, target: int, length: int) -> None:
        """An empty slot shares the first cells of another."""
        assert not self.tokens[target], f"slot {target} is copied into, and holds something"
        assert len(self.tokens[source]) >= length, f"slot {source} holds less than {length}"
        self.tokens[target] = self.tokens[source][:length]
        self._cells[target] = self._cells[source][:length]
        for cell in self._cells[target]:
            self._holders[cell] += 1


class FakeEngine:
    """Slots of bytes. `step_ms` is how long each step pretends to take; `sequences` 0 is two for each slot, one where
    no cells are shared.
    """

    def __init__(
        self,
        *,
        slots: int = 4,
        context: int = 4096,
        step_ms: float = 0.0,
        kv_tokens: int = 0,
        sequences: int = 0,
        shares_cells: bool = True,
    ) -> None:
        sequences = sequences or (2 * slots if shares_cells else slots)
        self.cells = FakeCells(sequences)
        self._scripts: list[list[int]] = [[] for _ in range(sequences)]
        self._sampling = [Sampling() for _ in range(sequences)]
        self._step_ms = step_ms
        self.steps: list[Step] = []
        self._facts = EngineFacts(
            slots=slots,
            sequences=sequences,
            kv_tokens=kv_tokens or slots * context,
            batch_tokens=2048,
            context=context,
            trimmable=True,
            shares_cells=shares_cells,
            vocab_size=257,
            max_piece_bytes=1,
            template=None,
            bos_token="",
            eos_token="",
            adds_bos=False,
            description="scripted engine, not a model",
        )

    @property
    def facts(self) -> EngineFacts:
        """See Engine."""
        return self._facts

    def tokenize(self, text: str) -> list[int]:
        """See Engine."""
        return list(text.encode("utf-8", "replace"))

    def piece(self, token: int) -> bytes:
        """See Engine."""
        return b"" if token == END else bytes([token])

    def ends(self, token: int) -> bool:
        """See Engine."""
        return token == END

    def ready(self, schema: str, tokens: int) -> str | None:
        """See Engine. It says what its prompt tells it to, whatever the schema."""
        return None

    def step(self, step: Step) -> dict[int, Drawn]:
        """See Engine."""
        self.steps = [*self.steps[-1023:], step]
        if self._step_ms:
            time.sleep(self._step_ms / 1000)
        for slot, keep in step.trims:
            self.cells.trim(slot, keep)
        for source, target, length in step.copies:
            self.cells.copy(source, target, length)
        for opening in step.opens:
            held = self.cells.tokens[opening.slot]
            assert not opening.prompt or held == list(opening.prompt[: len(held)]), "that is another prompt"
            self._scripts[opening.slot] = []
            self._sampling[opening.slot] = opening.sampling
        sampled: dict[int, Drawn] = {}
        for row in step.rows:
            cells = self.cells.tokens[row.slot]
            assert row.start == len(cells), (
                f"slot {row.slot} holds {len(cells)} tokens, the row is for {row.start}"
            )
            self.cells.extend(row.slot, row.tokens)
            if row.sample:
                sampled[row.slot] = self._drawn(row.slot, bytes(cells))
        assert self.cells.used <= self._facts.kv_tokens, "the scheduler overfilled the cache"
        if not self._facts.shares_cells:
            assert max(map(len, self.cells.tokens)) <= self._facts.context, "the scheduler overfilled a slot"
        return sampled

    def _drawn(self, slot: int, cells: bytes) -> Drawn:
        """The next byte of the slot's script; the likeliest ones are the byte itself and those behind it."""
        how = self._sampling[slot]
        if not self._scripts[slot]:
            # The seed of an answer that is not the first has more bits than any other.
            self._scripts[slot] = script(cells, choice=how.seed >> 64)[::-1]
        token = self._scripts[slot].pop()
        if token == END and how.ignore_eos:
            self._scripts[slot] = [ord(" ")] * 2_000
            token = ord(" ")
        if how.logprobs is None:
            return Drawn(token)
        return Drawn(token, -0.25, tuple(((token + i) % END, -0.25 - i) for i in range(how.logprobs)))

    def close(self) -> None:
        """See Engine."""


def script(prompt: bytes, choice: int = 0) -> list[int]:
    """The tokens that answer a prompt, far more than anybody asks for unless the prompt says what to say; each of
    several answers begins with other words.
    """
    text = prompt.decode("utf-8", "replace")
    if "[[crash]]" in text:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "[[hang]]" in text:
        threading.Event().wait()
    if "[[seize]]" in text:
        ctypes.PyDLL(None).pause()  # native code that never gives the GIL back
    if "[[fail]]" in text:
        raise StepFailed("the prompt asked for it")
    said = re.search(r"\[\[say:(.*?)\]\]", text, re.DOTALL)
    if said:
        return [*said.group(1).encode(), END]
    digest = sha256(prompt).digest()
    words = [WORDS[(digest[i % 32] + choice) % len(WORDS)] for i in range(2_000)]
    return list(" ".join(words).encode())
