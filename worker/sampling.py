"""How the next token is drawn from a row of logits: penalties, filters, one number of the job's own random stream.

Pure numpy. Nothing is sorted but what may be drawn: candidates are found by the maxima of blocks, so that a token of a
large vocabulary costs a few passes over its logits. Must not know of batches, grammars or scheduling.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from herder.brief import Sampling
from worker.engine import Drawn

Logits: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.intp]
Mask: TypeAlias = Callable[[Logits], None]
"""Sets the logits of tokens that must not come to -inf, in place. Called from the thread that draws the slot's row."""

BLOCK = 64
FIRST_GUESS = 256
"""Tokens of a nucleus that are looked at first."""
BINS = 4096
"""Parts of the range of keys in which a nucleus of more tokens is looked for."""
WHOLE_FROM = 4096
"""From so many candidates on, weights are added up by blocks."""
GREEDY_BELOW = 1e-3
"""A temperature below this one is 0: it would overflow, and draws the likeliest token anyway."""
SHARED_FROM = 1_000_000
"""So many logits are worth drawing from in several threads: numpy lets go of the GIL."""
THREADS_MAX = 8
USELESS = Drawn(0, useless=True)


class Samplers:
    """A sampler for each slot, and the threads that draw for many of them at once."""

    def __init__(self, threads: int) -> None:
        self._by_slot: dict[int, Sampler] = {}
        self._threads = max(1, min(threads, THREADS_MAX))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="sampling")

    def open(self, slot: int, sampler: Sampler) -> None:
        """Another answer begins in a slot."""
        self._by_slot[slot] = sampler

    def draw(self, rows: Sequence[tuple[int, Logits]]) -> dict[int, Drawn]:
        """The next token of each of these slots from its row of logits; at most one row a slot."""
        if self._threads == 1 or sum(len(row) for _, row in rows) < SHARED_FROM:
            return self._drawn(rows)
        parts = [rows[i :: self._threads] for i in range(self._threads)]
        drawn: dict[int, Drawn] = {}
        for part in self._pool.map(self._drawn, parts):
            drawn |= part
        return drawn

    def _drawn(self, rows: Sequence[tuple[int, Logits]]) -> dict[int, Drawn]:
        return {slot: self._by_slot[slot].draw(row) for slot, row in rows}

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class Sampler:
    """One answer's way to its tokens; made afresh for each attempt, so that the same seed draws the same tokens again.

    `prompt` is what penalties count before anything is drawn. `ends` are the tokens that `ignore_eos` forbids. `mask`
    is a grammar: it is applied to a copy of the logits before everything else, and decides by itself when the answer
    may end, so that `ignore_eos` is not looked at with it. The caller tells the grammar which token was drawn.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: tuple[int, ...] = (),
        *,
        ends: tuple[int, ...] = (),
        mask: Mask | None = None,
    ) -> None:
        self._how = sampling
        self._mask = mask
        self.greedy = sampling.temperature < GREEDY_BELOW
        penalised = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
        self._window = sampling.penalty_tokens if penalised != (1.0, 0.0, 0.0) else 0
        self._recent: deque[int] = deque(prompt[-self._window :] if self._window else (), self._window)
        self._biased = np.array([token for token, _ in sampling.logit_bias], np.intp)
        self._bias = np.array([bias for _, bias in sampling.logit_bias], np.float32)
        self._forbidden = np.array(ends if sampling.ignore_eos and mask is None else (), np.intp)
        # Counter-based, and one number a token: what is drawn depends on the seed and the position alone.
        self._random = np.random.Generator(np.random.Philox(key=sampling.seed))

    def draw(self, logits: Logits) -> Drawn:
        """The next token of a row of logits, which is left as it is; remembers it. Useless for NaN, +inf, and where
        nothing is allowed: other rows of the step may be sound.
        """
        row = self._changed(logits)
        token = int(row.argmax())  # NaN is the largest of all
        if not math.isfinite(row[token]):
            return USELESS
        if not self.greedy:
            ids, values = allowed(row, self._how)
            weights = _weights(values, self._how.temperature)
            place = _place(weights, self._random.random())
            token = place if ids is None else int(ids[place])
        if self._window:
            self._recent.append(token)
        return self._told(token, logits)

    def _changed(self, logits: Logits) -> Logits:
        """What is drawn from: the mask, then the end forbidden, then the bias, then penalties, on a copy."""
        if self._mask is None and not (len(self._biased) or len(self._forbidden) or self._recent):
            return logits
        row = logits.copy()
        if self._mask is not None:
            self._mask(row)
        row[self._forbidden] = -np.inf
        if len(self._biased):
            known = self._biased < len(row)
            row[self._biased[known]] += self._bias[known]
        if self._recent:
            penalise(row, np.array(self._recent, np.intp), self._how)
        return row

    def _told(self, token: int, logits: Logits) -> Drawn:
        """The token, with the model's own log-probabilities where they are wanted: before mask, bias and penalties."""
        wanted = self._how.logprobs
        if wanted is None:
            return Drawn(token)
        total = float(logits.max()) + math.log(float(_weights(logits).sum()))
        if not math.isfinite(total):
            return USELESS
        likeliest = largest(logits, wanted) if wanted else ()
        tops = tuple((int(each), float(logits[each]) - total) for each in likeliest)
        return Drawn(token, float(logits[token]) - total, tops)


def penalise(row: Logits, recent: Ids, how: Sampling) -> None:
    """Lower the logits of the tokens in `recent`, in place: first divided (a negative one multiplied) by
    `repeat_penalty`, then less `frequency_penalty` for each time that the token is there, and `presence_penalty` once.
    """
    tokens, counts = np.unique(recent, return_counts=True)
    values = row[tokens]
    repeat = np.float32(how.repeat_penalty)
    values = np.where(values > 0, values / repeat, values * repeat)
    row[tokens] = values - counts.astype(np.float32) * np.float32(how.frequency_penalty)
    row[tokens] -= np.float32(how.presence_penalty)


def allowed(row: Logits, how: Sampling) -> tuple[Ids | None, Logits]:
    """The tokens that may be drawn, and their logits; None for the whole row. Its largest logit is finite.

    Each filter looks at what the one before has left: top_k, typical_p, top_p, min_p.
    """
    ids: Ids | None = None
    values, ranked = row, False
    if 0 < how.top_k < len(row):
        ids, ranked = largest(row, how.top_k), True
        values = row[ids]
    if how.typical_p < 1:
        weights = _weights(values)
        places, ranked = _nucleus(_typical(values, weights), weights, how.typical_p), False
        ids, values = _picked(ids, values, places)
    if how.top_p < 1:
        weights = _weights(values)
        if ranked:
            kept = _reaching(weights, how.top_p * float(weights.sum()))
            ids, values = _picked(ids, values, slice(kept))
        else:
            ids, values = _picked(ids, values, _nucleus(values, weights, how.top_p))
    if how.min_p > 0:
        least = values.max() + np.float32(math.log(how.min_p))
        ids, values = _picked(ids, values, np.flatnonzero(values >= least))
    return ids, values


def _weights(values: Logits, temperature: float = 1.0) -> Logits:
    """What the softmax of the logits is proportional to; the largest is 1."""
    weights: Logits = values - values.max()
    if temperature != 1:
        weights /= np.float32(temperature)
    np.exp(weights, out=weights)
    return weights


def _picked(ids: Ids | None, values: Logits, places: Ids | slice) -> tuple[Ids, Logits]:
    if ids is None:
        assert not isinstance(places, slice), "what is ranked has ids"
        return places, values[places]
    return ids[places], values[places]


def _reaching(weights: Logits, target: float, before: float = 0.0) -> int:
    """How many of the weights, in their order, it takes to come from `before` to the target; at least one."""
    reached = np.cumsum(weights, dtype=np.float64)
    return int(np.searchsorted(reached, target - before)) + 1


def _typical(values: Logits, weights: Logits) -> Logits:
    """How near each token's surprise is to the mean surprise; the largest are the most typical."""
    total = weights.sum(dtype=np.float64)
    surprise = np.float32(math.log(total)) - (values - values.max())
    # A token that is not allowed has weight 0 and an infinite surprise.
    mean = np.multiply(weights, surprise, out=np.zeros_like(weights), where=weights > 0).sum(dtype=np.float64)
    keys: Logits = -np.abs(surprise - np.float32(mean / total))
    return keys


def _nucleus(keys: Logits, weights: Logits, share: float) -> Ids:
    """The places of the largest keys: as few as have `share` of all weight, and at least one."""
    target = share * float(weights.sum())
    places = largest(keys, FIRST_GUESS)
    kept = _reaching(weights[places], target)
    if kept <= len(places) or len(places) < FIRST_GUESS:
        return places[:kept]
    # A flat distribution. Only the part of the range where the target is reached needs an order.
    finite = keys > -np.inf
    top, bottom = float(keys.max()), float(keys.min(where=finite, initial=np.inf))
    scale = np.float32((BINS - 1) / max(top - bottom, 1e-6))
    bins = np.where(finite, (np.float32(top) - keys) * scale, BINS - 1).astype(np.intp)
    sums = np.cumsum(np.bincount(bins, weights, BINS))
    last = min(int(np.searchsorted(sums, target)), BINS - 1)
    edge = _sorted(keys, np.flatnonzero((bins == last) & finite))
    kept = _reaching(weights[edge], target, float(sums[last - 1]) if last else 0.0)
    return np.concatenate([np.flatnonzero(bins < last), edge[:kept]])


def largest(keys: Logits, count: int) -> Ids:
    """The places of the `count` largest keys, largest first, equal ones by place; of those that are not -inf."""
    return _sorted(keys, _candidates(keys, count))[:count]


def _candidates(keys: Logits, count: int) -> Ids:
    """At least the `count` largest, and few others: none that is below the `count`-th largest maximum of a block."""
    whole = len(keys) // BLOCK * BLOCK
    bound: np.float32
    if count * BLOCK < whole:
        # A block is a column: so the maxima are taken of long rows at once.
        blocks = keys[:whole].reshape(BLOCK, -1)
        peaks = blocks.max(axis=0)
        bound = np.partition(peaks, len(peaks) - count)[len(peaks) - count]
        if bound > -np.inf:
            columns = np.flatnonzero(peaks >= bound)
            rows, chosen = np.nonzero(blocks[:, columns] >= bound)
            places: Ids = rows * blocks.shape[1] + columns[chosen]
            if whole == len(keys):
                return places
            return np.concatenate([places, whole + np.flatnonzero(keys[whole:] >= bound)])
    elif count < len(keys):
        bound = np.partition(keys, len(keys) - count)[len(keys) - count]
    else:
        bound = np.float32(-np.inf)
    return np.flatnonzero(keys >= bound if bound > -np.inf else keys > bound)


def _sorted(keys: Logits, places: Ids) -> Ids:
    order: Ids = np.argsort(-keys[places], kind="stable")
    return places[order]


def _place(weights: Logits, chance: float) -> int:
    """Where `chance`, in [0, 1), falls on the weights laid end to end; never on one that is 0."""
    start, before = 0, 0.0
    part = weights
    if len(weights) >= WHOLE_FROM:
        whole = len(weights) // BLOCK * BLOCK
        sums = weights[:whole].reshape(-1, BLOCK).sum(axis=1)
        ends = np.cumsum(np.append(sums, weights[whole:].sum()), dtype=np.float64)
        chance *= float(ends[-1])
        block = _first_above(ends, chance)
        start, before = block * BLOCK, float(ends[block - 1]) if block else 0.0
        part = weights[start : start + BLOCK] if start < whole else weights[whole:]
    ends = np.cumsum(part, dtype=np.float64)
    if part is weights:
        chance *= float(ends[-1])
    return start + _first_above(ends, chance - before)


def _first_above(ends: npt.NDArray[np.float64], at: float) -> int:
    """The first place where the sum is above `at`; the last place that added to it, where rounding has left none."""
    place = int(np.searchsorted(ends, at, side="right"))
    return place if place < len(ends) else int(np.searchsorted(ends, ends[-1]))
