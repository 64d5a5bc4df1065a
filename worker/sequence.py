"""One answer of a leased job while this worker makes it: its tokens, how far they are decoded, its text so far.

A job that wants several answers is as many sequences with one key, which are settled together. Pure. Must
not know of the engine, of Redis or of other jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

from herder.choices import Chance, Choice, TokenChances, choices_text, logprobs_text
from herder.pricing import capture
from herder.protocol import FinishReason, Lease, Outcome, Settlement
from worker.answers import misfit
from worker.engine import Drawn
from worker.text import TextStream

IMPOSSIBLE = -1000.0
"""The log-probability of a token that cannot be: JSON has no infinity."""

PIECE_CHANCES_MAX = 128
"""Log-probabilities in one piece of an answer: some 8 kB, since every reader of a stream may have many to read."""

SCHEMA_ERROR = "schema_error"
ENGINE_ERROR = "engine_error"
RETRY_TEMPERATURE = 0.7
"""At least so warm is the second try of a typed answer: the first one's choices would only come again."""

Key = tuple[str, int]
"""(job id, attempt): an attempt is what a worker holds; the same job may come back as another attempt."""


@dataclass(frozen=True)
class Failure:
    """Why a job cannot be answered; the code is part of the API."""

    code: str
    message: str


@dataclass(frozen=True)
class Piece:
    """Some text of an answer, with so many tokens; `chances` are of those whose own text ends in it."""

    text: str
    tokens: int
    chances: list[TokenChances]


class Sequence:
    """An answer under way. `tokens` are the prompt and all that was produced; `done` of them are in the cache.

    `choice` counts the answers of one attempt from 0; each has a random stream of its own.
    """

    def __init__(self, lease: Lease, prompt: list[int] | None = None, choice: int = 0) -> None:
        self.lease = _with_stream(lease, choice)
        self.choice = choice
        self.key: Key = (lease.job_id, lease.attempt)
        self.read(prompt or [])
        self.produced = 0
        self.slot: int | None = None
        self.done = 0
        self.cached = 0
        self.finish: FinishReason | None = None
        self.failure: Failure | None = None
        self.text = ""
        self.reported_tokens = 0
        self.reported_chars = 0
        self.reported_chances = 0
        self.chances: list[TokenChances] = []
        self._ends: list[int] = []
        self.again = False
        self._tries = 1
        self._stream = TextStream(lease.brief.stop)

    def read(self, prompt: list[int]) -> None:
        """The prompt's tokens have been counted."""
        self.tokens, self.prompt_tokens = prompt, len(prompt)

    @property
    def reserved(self) -> int:
        """KV cells kept for it: the prompt and every token it may produce."""
        return self.prompt_tokens + self.lease.tokens

    @property
    def decoding(self) -> bool:
        """Whether only its newest token is still to be decoded, so that the next step produces one."""
        return self.produced > 0

    @property
    def ended(self) -> bool:
        """Whether nothing more will be produced."""
        return self.finish is not None or self.failure is not None

    @property
    def sound(self) -> bool:
        """Whether what it has in the cache may be of use to others."""
        return self.failure is None or self.failure.code != ENGINE_ERROR

    @property
    def held(self) -> bool:
        """Whether its text is not to be shown yet: a typed answer is told whole or not at all."""
        return self.lease.brief.schema is not None and self.finish is None

    def take(
        self,
        token: int,
        piece: bytes,
        ends: bool,
        chances: TokenChances | None = None,
        *,
        whole: bool = False,
    ) -> None:
        """A token was sampled. One that ends the answer is no part of it: it is neither counted nor shown.

        `whole`: with this token a typed answer is complete.
        """
        if ends:
            self._end(FinishReason.STOP)
            return
        self.tokens.append(token)
        self.produced += 1
        self.text += self._stream.push(piece)
        if chances is not None:
            self.chances.append(chances)
            # Where its own text ends in the answer's; one that completes a stop string is never all of it shown.
            self._ends.append(len(self.text) + (1 if self._stream.stopped else self._stream.behind))
        if self._stream.stopped or whole:
            self._end(FinishReason.STOP)
        elif self.produced >= self.lease.tokens:
            self._end(FinishReason.LENGTH)

    @property
    def unreported_tokens(self) -> int:
        """How many tokens can be reported. While characters are held back one token waits: the broker tells a piece
        from its repeat by the index of its first token, so what they bring in the end must have one."""
        waiting = self._stream.holds and not self.ended
        return self.produced - self.reported_tokens - waiting

    @property
    def unreported(self) -> bool:
        """Whether there is text to be told."""
        return not self.held and len(self.text) > self.reported_chars and self.unreported_tokens > 0

    def report(self) -> Piece:
        """What has not been reported, or the beginning of it that one event may tell; from now on it has been."""
        first = last = self.reported_chances
        while last < len(self._ends) and self._ends[last] <= len(self.text):
            last += 1
        most = max(PIECE_CHANCES_MAX // (1 + (self.lease.brief.sampling.logprobs or 0)), 1)
        tokens, end = self.unreported_tokens, len(self.text)
        cut = first + most
        while cut < last and self._ends[cut] == self._ends[cut - 1]:  # the rest of a character
            cut += 1
        if cut < last and cut - first < tokens:  # there are tokens left to tell the rest with
            tokens, last, end = cut - first, cut, self._ends[cut - 1]
        piece = Piece(self.text[self.reported_chars : end], tokens, self.chances[first:last])
        self.reported_tokens += tokens
        self.reported_chars, self.reported_chances = end, last
        return piece

    def cancel(self) -> None:
        """Stop here, with the text so far."""
        self._end(FinishReason.CANCELLED)

    def fail(self, code: str, message: str) -> None:
        """It cannot be answered."""
        if not self.ended:
            self.failure = Failure(code, message)

    def unfit(self, why: str) -> None:
        """This answer does not fit its schema, or cannot: another is made, once."""
        if self._tries == 1:
            self.again = True
        else:
            self.fail(SCHEMA_ERROR, why)

    def begin_again(self) -> None:
        """Forget the answer so far and make another, with another random stream."""
        sampling = self.lease.brief.sampling
        warm = max(sampling.temperature, RETRY_TEMPERATURE)
        sampling = replace(sampling, seed=sampling.seed + (1 << 96), temperature=warm)
        self.lease = replace(self.lease, brief=replace(self.lease.brief, sampling=sampling))
        self.tokens, self.produced, self.text = self.tokens[: self.prompt_tokens], 0, ""
        self.chances, self._ends, self.again = [], [], False
        self._tries += 1
        self._stream = TextStream(self.lease.brief.stop)

    def _end(self, reason: FinishReason) -> None:
        if self.ended:
            return
        self.text += self._stream.finish()
        schema = self.lease.brief.schema
        why = misfit(self.text, schema) if schema and reason is not FinishReason.CANCELLED else None
        if why is None:
            self.finish = reason
        else:
            self.unfit(f"no answer came that fits the schema: {why}")


def sequences_of(lease: Lease) -> list[Sequence]:
    """One for each answer that the job wants."""
    return [Sequence(lease, choice=choice) for choice in range(lease.brief.n)]


def repeatable(held: Seq[Sequence]) -> bool:
    """Whether these are the answers to one job, alone, that is to be computed in the same way each time."""
    return len({sequence.key for sequence in held}) == 1 and held[0].lease.brief.repeatable


def _with_stream(lease: Lease, choice: int) -> Lease:
    """The lease with this answer's own seed: no seed of a caller's has so many bits."""
    if choice == 0:
        return lease
    sampling = replace(lease.brief.sampling, seed=lease.brief.sampling.seed + (choice << 64))
    return replace(lease, brief=replace(lease.brief, sampling=sampling))


def chances_of(drawn: Drawn, piece: Callable[[int], bytes]) -> TokenChances | None:
    """What was drawn and what else might have been, where that was asked for."""
    if drawn.logprob is None:
        return None

    def chance(token: int, logprob: float) -> Chance:
        text = piece(token).decode("utf-8", "replace")
        return {"token": token, "text": text, "logprob": round(max(logprob, IMPOSSIBLE), 4) + 0.0}  # no -0.0

    top = [chance(token, logprob) for token, logprob in drawn.likeliest]
    return {**chance(drawn.token, drawn.logprob), "top": top}


def settlement_of(answers: Seq[Sequence]) -> Settlement:
    """How an attempt ends, priced by the tokens of all its answers. One that failed fails all, and nothing is captured.

    All have ended, or one has failed.
    """
    first = answers[0]
    failure = next((answer.failure for answer in answers if answer.failure is not None), None)
    assert failure is not None or all(answer.finish is not None for answer in answers)
    produced = sum(answer.produced for answer in answers)
    cancelled = any(answer.finish is FinishReason.CANCELLED for answer in answers)
    well = Outcome.CANCELLED if cancelled else Outcome.SUCCEEDED
    told = failure is None and first.lease.brief.sampling.logprobs is not None
    choices = [Choice(a.text, a.finish.value if a.finish else "", a.produced) for a in answers]
    return Settlement(
        job_id=first.lease.job_id,
        attempt=first.lease.attempt,
        outcome=Outcome.FAILED if failure else well,
        text="" if failure else first.text,
        finish_reason=None if failure else first.finish,
        prompt_tokens=first.prompt_tokens,
        completion_tokens=produced,
        captured=0 if failure else capture(first.lease.terms, produced),
        cached_tokens=first.cached,
        error_code=failure.code if failure else None,
        error_message=failure.message if failure else None,
        choices=None if failure else choices_text(choices),
        logprobs=logprobs_text([answer.chances for answer in answers]) if told else None,
    )
