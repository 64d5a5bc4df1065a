"""One leased job while this worker answers it: its tokens, how far they are decoded, its text so far.

Pure. Must not know of the engine, of Redis or of the other sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

from herder.pricing import capture
from herder.protocol import FinishReason, Lease, Outcome, Settlement
from worker.text import TextStream

Key = tuple[str, int]
"""(job id, attempt): an attempt is what a worker holds; the same job may come back as another attempt."""


@dataclass(frozen=True)
class Failure:
    """Why a job cannot be answered; the code is part of the API."""

    code: str
    message: str


class Sequence:
    """A job's attempt under way. `tokens` are the prompt and all that was produced; `done` of them are in the cache."""

    def __init__(self, lease: Lease, prompt: list[int] | None = None) -> None:
        self.lease = lease
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

    def take(self, token: int, piece: bytes, ends: bool) -> None:
        """A token was sampled. One that ends the answer is no part of it: it is neither counted nor shown."""
        if ends:
            self._end(FinishReason.STOP)
            return
        self.tokens.append(token)
        self.produced += 1
        self.text += self._stream.push(piece)
        if self._stream.stopped:
            self._end(FinishReason.STOP)
        elif self.produced >= self.lease.tokens:
            self._end(FinishReason.LENGTH)

    def cancel(self) -> None:
        """Stop here, with the text so far."""
        self._end(FinishReason.CANCELLED)

    def fail(self, code: str, message: str) -> None:
        """It cannot be answered."""
        if not self.ended:
            self.failure = Failure(code, message)

    def _end(self, reason: FinishReason) -> None:
        if not self.ended:
            self.finish = reason
            self.text += self._stream.finish()

    def settlement(self) -> Settlement:
        """How this attempt ends, priced: nothing is captured of a failed one, else what the tokens produced cost."""
        assert self.ended
        if self.failure is not None:
            outcome, captured = Outcome.FAILED, 0
        else:
            outcome = Outcome.CANCELLED if self.finish is FinishReason.CANCELLED else Outcome.SUCCEEDED
            captured = capture(self.lease.terms, self.produced)
        return Settlement(
            job_id=self.lease.job_id,
            attempt=self.lease.attempt,
            outcome=outcome,
            text="" if self.failure else self.text,
            finish_reason=self.finish,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.produced,
            captured=captured,
            cached_tokens=self.cached,
            error_code=self.failure.code if self.failure else None,
            error_message=self.failure.message if self.failure else None,
        )
