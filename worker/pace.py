"""How much prefill a step can bear, and how fast the worker is, both from measured step times.

Pure: elapsed times are passed in. Must not know of engines, jobs or the clock.
"""

from __future__ import annotations

import math

STEP_TARGET_MS = 300.0
READERS_SHARE = 0.5
"""Of a step's time that prompts leave to those who read along, where every slot has one."""
FIRST_BUDGET = 32
LEAST_BUDGET = 8
LEARNING = 0.5
ROWS_UNIT, TOKENS_UNIT = 8, 64
BLOCK = 64
"""Rows of which llama.cpp on a processor computes the attention at once; fewer go row by row, which takes longer."""
FIXED_MOST_MS = 10_000.0
"""The longest that a step of a fixed number of rows may take: the watchdog waits for it, and so do newcomers."""
LEAST_TOKEN_MS = 1e-3
SPEED_HALF_LIFE_MS = 10_000.0


class StepTime:
    """What a step takes: so much, and so much for each decode row, and for each token of a prompt.

    Learnt by normalised least mean squares: each step moves the three, in proportion to what it had of each, until
    LEARNING of the error is gone. One that took more than twice as long as foreseen, and longer than a step aims at,
    counts as that: a machine that was busy for a moment is not a slow one, and a slow one shows in a few steps.
    """

    def __init__(self) -> None:
        self._fixed_ms = self._row_ms = 0.0
        self.token_ms = 0.0
        """0 before the first prompt."""

    def without_prompts(self, decoding: int) -> float:
        """The milliseconds of a step with so many decode rows."""
        return self._fixed_ms + self._row_ms * decoding

    def measured(self, decoding: int, prefilled: int, elapsed_ms: float) -> None:
        """Learn from a step."""
        if prefilled and not self.token_ms:  # the first one says little of what is whose
            self.token_ms = elapsed_ms / 2 / prefilled
            return
        foreseen = self.without_prompts(decoding) + self.token_ms * prefilled
        error = min(elapsed_ms - foreseen, max(foreseen, STEP_TARGET_MS))
        # In units of about what a step has of each.
        rows, tokens = decoding / ROWS_UNIT, prefilled / TOKENS_UNIT
        step = LEARNING * error / (1 + rows**2 + tokens**2)
        self._fixed_ms = max(self._fixed_ms + step, 0.0)
        self._row_ms = max(self._row_ms + step * rows / ROWS_UNIT, 0.0)
        if prefilled:
            self.token_ms = max(self.token_ms + step * tokens / TOKENS_UNIT, LEAST_TOKEN_MS)


class PrefillPace:
    """The prefill budget: tokens that fit what the decoding sequences leave of the time a step aims at."""

    def __init__(
        self, slots: int, batch_tokens: int, *, apart: bool = False, target_ms: float = STEP_TARGET_MS
    ) -> None:
        """`apart`: each slot has a cache of its own."""
        self._slots = slots
        self._apart = apart
        self._batch_tokens = batch_tokens
        self._target_ms = target_ms
        self._time = StepTime()
        self._largest = FIRST_BUDGET
        self._squeeze = 1

    def budget(self, decoding: int, *, fixed: bool = False) -> int:
        """Prefill tokens for a step in which `decoding` sequences each wait for their next token.

        `fixed`: a block, whatever has been measured, unless that takes very long.
        """
        room = self._batch_tokens - decoding
        tokens = FIRST_BUDGET
        if fixed and self._time.token_ms * BLOCK <= FIXED_MOST_MS:
            tokens = BLOCK
        elif self._time.token_ms:
            # The more callers are reading along, the less of their time one long prompt may take.
            target_ms = self._target_ms * (1 - READERS_SHARE * decoding / self._slots)
            spare_ms = max(0.0, target_ms - self._time.without_prompts(decoding))
            # At most four times what has been tried: a short prompt's time says little of a long one's.
            tokens = min(self._whole(int(spare_ms / self._time.token_ms), decoding), 4 * self._largest)
        return max(min(max(tokens // self._squeeze, LEAST_BUDGET), room), 0)

    def _whole(self, tokens: int, decoding: int) -> int:
        """About so many, such that their rows come in whole blocks, but no block for less than half of one.

        The decode rows stand in the first block. Where each slot has a cache of its own, llama.cpp decodes slots
        together that have equally many rows: the first token of a prompt with those rows, the others by themselves.
        """
        beside = -1 if self._apart else decoding
        blocks = (tokens + beside + BLOCK // 2) // BLOCK
        return blocks * BLOCK - beside if decoding and blocks else tokens

    def measured(self, decoding: int, prefilled: int, elapsed_ms: float) -> None:
        """Learn from a step that took `elapsed_ms` with so many decode rows and prefill tokens."""
        self._squeeze = 1
        # Far too long: half as much comes next, whatever the reason was.
        slow = elapsed_ms > 2 * self._target_ms
        self._largest = prefilled // 8 if prefilled and slow else max(self._largest, prefilled)
        self._time.measured(decoding, prefilled, elapsed_ms)

    def refused(self) -> None:
        """The batch did not fit the KV cache: halve the budget until a step has succeeded."""
        self._squeeze = min(self._squeeze * 2, self._batch_tokens)


class Speed:
    """Tokens produced a second of busy time, an average in which a step counts half after 10 s of busy time."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._ms = 0.0

    def measured(self, tokens: int, elapsed_ms: float) -> None:
        """A step produced so many tokens over all sequences in `elapsed_ms`."""
        decay = math.exp2(-elapsed_ms / SPEED_HALF_LIFE_MS)
        self._tokens = self._tokens * decay + tokens
        self._ms = self._ms * decay + elapsed_ms

    @property
    def tokens_per_second(self) -> float:
        """0 before the first step."""
        return self._tokens / self._ms * 1000 if self._ms > 0 else 0.0
