"""How much prefill a step can bear, and how fast the worker is, both from measured step times.

Pure: elapsed times are passed in. Must not know of engines, jobs or the clock.
"""

from __future__ import annotations

import math

STEP_TARGET_MS = 300.0
FIRST_BUDGET = 32
LEAST_BUDGET = 8
SMOOTHING = 0.3
SPEED_HALF_LIFE_MS = 10_000.0


class PrefillPace:
    """The prefill budget: tokens that fit what the decoding sequences leave of the time a step aims at."""

    def __init__(self, slots: int, batch_tokens: int, target_ms: float = STEP_TARGET_MS) -> None:
        self._slots = slots
        self._batch_tokens = batch_tokens
        self._target_ms = target_ms
        self._decode_ms = 0.0
        self._ms_per_token: float | None = None
        self._largest = FIRST_BUDGET
        self._squeeze = 1

    def budget(self, decoding: int) -> int:
        """Prefill tokens for a step in which `decoding` sequences each wait for their next token."""
        room = self._batch_tokens - decoding
        if self._ms_per_token is None:
            tokens = FIRST_BUDGET
        else:
            # The more callers are reading along, the less of their time one long prompt may take.
            import os

            target = float(os.environ.get("T_MS", "200")) * (
                1 - float(os.environ.get("T_F", "0.75")) * decoding / self._slots
            )
            spare_ms = max(0.0, target - (self._decode_ms if decoding else 0.0))
            # At most four times what has been tried: a short prompt's time says little of a long one's.
            tokens = min(int(spare_ms / max(self._ms_per_token, 1e-3)), 4 * self._largest)
        return max(min(max(tokens // self._squeeze, LEAST_BUDGET), room), 0)

    def measured(self, decoding: int, prefilled: int, elapsed_ms: float) -> None:
        """Learn from a step that took `elapsed_ms` with so many decode rows and prefill tokens."""
        self._squeeze = 1
        if prefilled == 0:
            self._decode_ms += SMOOTHING * (elapsed_ms - self._decode_ms)
            return
        self._largest = max(self._largest, prefilled)
        per_token = max(elapsed_ms - (self._decode_ms if decoding else 0.0), 0.0) / prefilled
        # A few tokens carry the whole fixed cost of a step, so they say little.
        weight = min(1.0, prefilled / 32)
        if self._ms_per_token is None or (per_token > self._ms_per_token and weight == 1.0):
            self._ms_per_token = per_token  # slower than thought: believe it at once
        else:
            self._ms_per_token += SMOOTHING * weight * (per_token - self._ms_per_token)

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
