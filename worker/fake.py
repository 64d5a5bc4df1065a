"""A scripted engine for tests and benchmarks of the broker: no model, no native code, never a default anywhere.

Every byte is a token. The answer follows from the prompt alone, so a re-run repeats it, and a wrong position, a lost
row or a cache that holds something else is an assertion here. A prompt can ask for trouble: `[[say:TEXT]]` answers
TEXT and ends, `[[fail]]` fails the decode, `[[crash]]` kills the process, `[[hang]]` never returns.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from hashlib import sha256

from worker.engine import Drawn, EngineFacts, Step, StepFailed

END = 256
WORDS = (
    "river stone light garden quiet morning paper winter engine signal copper forest window market".split()
)


class FakeEngine:
    """Slots of bytes. `step_ms` is how long each step pretends to take."""

    def __init__(
        self, *, slots: int = 4, context: int = 4096, step_ms: float = 0.0, kv_tokens: int = 0
    ) -> None:
        self._cells: list[list[int]] = [[] for _ in range(slots)]
        self._scripts: list[list[int]] = [[] for _ in range(slots)]
        self._step_ms = step_ms
        self.steps: list[Step] = []
        self._facts = EngineFacts(
            slots=slots,
            kv_tokens=kv_tokens or slots * context,
            batch_tokens=2048,
            context=context,
            trimmable=True,
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

    def step(self, step: Step) -> dict[int, Drawn]:
        """See Engine."""
        self.steps = [*self.steps[-1023:], step]
        if self._step_ms:
            time.sleep(self._step_ms / 1000)
        for slot, keep in step.trims:
            del self._cells[slot][keep:]
        for source, target, length in step.copies:
            assert not self._cells[target], f"slot {target} is copied into, and holds something"
            assert len(self._cells[source]) >= length, f"slot {source} holds less than {length}"
            self._cells[target] = self._cells[source][:length]
        for opening in step.opens:
            self._scripts[opening.slot] = []
        sampled: dict[int, Drawn] = {}
        for row in step.rows:
            cells = self._cells[row.slot]
            assert row.start == len(cells), (
                f"slot {row.slot} holds {len(cells)} tokens, the row is for {row.start}"
            )
            cells.extend(row.tokens)
            if row.sample:
                if not self._scripts[row.slot]:
                    self._scripts[row.slot] = script(bytes(cells))[::-1]
                sampled[row.slot] = Drawn(self._scripts[row.slot].pop())
        assert sum(map(len, self._cells)) <= self._facts.kv_tokens, "the scheduler overfilled the cache"
        return sampled

    def close(self) -> None:
        """See Engine."""


def script(prompt: bytes) -> list[int]:
    """The tokens that answer a prompt, far more than anybody asks for unless the prompt says what to say."""
    text = prompt.decode("utf-8", "replace")
    if "[[crash]]" in text:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "[[hang]]" in text:
        threading.Event().wait()
    if "[[fail]]" in text:
        raise StepFailed("the prompt asked for it")
    said = re.search(r"\[\[say:(.*?)\]\]", text, re.DOTALL)
    if said:
        return [*said.group(1).encode(), END]
    digest = sha256(prompt).digest()
    return list(" ".join(WORDS[digest[i % 32] % len(WORDS)] for i in range(2_000)).encode())
