"""Every way the herder says no. Drawn as a tree, each leaf with a stable code and an HTTP status.

HerderError
├── Refusal                 the caller's request, refused; costs nothing, changes nothing
│   ├── BadRequest          400 bad_request           not JSON, or not an object
│   ├── MissingKey          401 missing_key           no API key was sent
│   ├── InvalidKey          401 invalid_key           unknown, mistyped or revoked
│   ├── InsufficientFunds   402 insufficient_funds    needed, balance, max_affordable_tokens
│   ├── FeeTooLow           402 fee_too_low           a static fee below the base fee: needed
│   ├── MaxFeeExceeded      402 max_fee_exceeded      the price is above the caller's max_fee: needed
│   ├── Forbidden           403 forbidden             the key may not do this
│   ├── AccountSuspended    403 account_suspended
│   ├── NotFound            404 not_found             no such thing, or not yours
│   ├── UnknownModel        404 unknown_model         with the models there are
│   ├── MethodNotAllowed    405 method_not_allowed
│   ├── Conflict            409 conflict              the thing exists, or changed meanwhile
│   ├── IdempotencyConflict 409 idempotency_conflict  the key was used with another body
│   ├── TooLarge            413 too_large             body or prompt over the cap: limit
│   ├── InvalidRequest      422 invalid_request       a field is wrong: errors
│   ├── ContextExceeded     422 context_exceeded      prompt + tokens can never fit: limit
│   └── RateLimited         429 rate_limited          retry_after
├── AnswerFailed            500 answer_failed         the job ended without an answer; refunded: job_id, reason
└── Unavailable             503                       nothing wrong with the request: try again
    ├── Overloaded          503 overloaded            no room: the backlog, Redis's memory, open streams
    ├── NoWorker            503 no_worker             no live worker has the model (only by setting)
    ├── RedisUnavailable    503 redis_unavailable     the broker cannot reach Redis
    └── StoreUnavailable    503 store_unavailable     the store is damaged, or takes no more
"""

from __future__ import annotations

from typing import Any, ClassVar


class HerderError(Exception):
    """An answer other than yes. `extra` are the fields that the problem document carries beside the standard ones."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra
        self.why = ""  # for whoever runs the herd; callers are not told

    def __str__(self) -> str:
        """For the log."""
        return f"{self.detail}: {self.why}" if self.why else self.detail


class Refusal(HerderError):
    """The caller's request, refused; it cost nothing and changed nothing."""


class BadRequest(Refusal):
    code, status, title = "bad_request", 400, "Bad request"


class MissingKey(Refusal):
    code, status, title = "missing_key", 401, "API key required"


class InvalidKey(Refusal):
    code, status, title = "invalid_key", 401, "API key not accepted"


class InsufficientFunds(Refusal):
    code, status, title = "insufficient_funds", 402, "Not enough credits"


class FeeTooLow(Refusal):
    code, status, title = "fee_too_low", 402, "Fee below the base fee"


class MaxFeeExceeded(Refusal):
    code, status, title = "max_fee_exceeded", 402, "Price above max_fee"


class Forbidden(Refusal):
    code, status, title = "forbidden", 403, "Not allowed with this key"


class AccountSuspended(Refusal):
    code, status, title = "account_suspended", 403, "Account suspended"


class NotFound(Refusal):
    code, status, title = "not_found", 404, "Not found"


class UnknownModel(Refusal):
    code, status, title = "unknown_model", 404, "Unknown model"


class MethodNotAllowed(Refusal):
    code, status, title = "method_not_allowed", 405, "Method not allowed"


class Conflict(Refusal):
    code, status, title = "conflict", 409, "Conflict"


class IdempotencyConflict(Refusal):
    code, status, title = "idempotency_conflict", 409, "Idempotency key reused"


class TooLarge(Refusal):
    code, status, title = "too_large", 413, "Too large"


class InvalidRequest(Refusal):
    code, status, title = "invalid_request", 422, "Invalid request"


class ContextExceeded(Refusal):
    code, status, title = "context_exceeded", 422, "Does not fit the model's context"


class RateLimited(Refusal):
    code, status, title = "rate_limited", 429, "Too many requests"


class AnswerFailed(HerderError):
    """A job that somebody waited for has failed. `final` where it would fail again."""

    code, status, title = "answer_failed", 500, "The job failed"

    def __init__(self, detail: str, *, final: bool = False, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.final = final


class Unavailable(HerderError):
    """Nothing is wrong with the request; the same one may succeed later."""


class Overloaded(Unavailable):
    code, status, title = "overloaded", 503, "No room just now"


class NoWorker(Unavailable):
    code, status, title = "no_worker", 503, "No live worker for this model"


class NotReady(Unavailable):
    code, status, title = "not_ready", 503, "Not ready"


class RedisUnavailable(Unavailable):
    code, status, title = "redis_unavailable", 503, "Redis cannot be reached"


class StoreUnavailable(Unavailable):
    code, status, title = "store_unavailable", 503, "The store cannot be used"


class SetupError(Exception):
    """The herd cannot start as it is configured; the message says what to do. Never raised while serving."""
