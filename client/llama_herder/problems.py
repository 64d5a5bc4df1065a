"""One exception class for each problem code of the herder, with the fields that its problem document carries.

Knows no HTTP library and no server; a test holds these classes against the server's own.
"""

from __future__ import annotations

from collections.abc import Callable

from llama_herder.errors import HerderError, Refusal, Unavailable


class BadRequest(Refusal):
    """The body was not JSON, or not an object."""

    code, status = "bad_request", 400


class MissingKey(Refusal):
    """No API key was sent: pass `api_key=`, or set HERDER_API_KEY."""

    code, status = "missing_key", 401


class InvalidKey(Refusal):
    """The API key is unknown, mistyped or revoked."""

    code, status = "invalid_key", 401


class _Priced(Refusal):
    """A refusal that names a price."""

    @property
    def needed(self) -> int | None:
        """The credits that would have been enough."""
        return self._int("needed")

    @property
    def base_fee(self) -> int | None:
        """What the same costs at a multiplier of 1, the least that is taken; where the herder said so."""
        return self._int("base_fee")


class InsufficientFunds(_Priced):
    """The balance does not cover the fee."""

    code, status = "insufficient_funds", 402

    @property
    def balance(self) -> int | None:
        """The credits that are available."""
        return self._int("balance")

    @property
    def max_affordable_tokens(self) -> int | None:
        """The most tokens that the balance covers at this price."""
        return self._int("max_affordable_tokens")

    @property
    def affordable_items(self) -> int | None:
        """Of a batch: how many of its items, from the first on, the balance covers."""
        return self._int("affordable_items")

    def ways_out(
        self, bid: str = "multiplier=1", tokens: str = "tokens=", amount: Callable[[int], str] = str
    ) -> list[str]:
        """What would cost less, in the words of the caller: its bid of 1, its tokens, its way to write credits."""
        if "max_affordable_tokens" not in self.extra:  # not a job's
            return []
        needed, base, balance = self.needed or 0, self.base_fee, self.balance or 0
        most, dear = self.max_affordable_tokens, base is None or needed > base
        found = []
        if base is None:
            found.append(f"{bid} is the cheapest bid")
        elif not dear:
            found.append(f"{amount(base)} is the base fee, the least that so many tokens cost")
        elif balance >= base:
            found.append(f"with {bid} it costs {amount(base)}, the base fee")
        else:
            found.append(f"even with {bid} it costs {amount(base)}, the base fee{self._at_most()}")
        if most is not None:
            enough = f"enough for {tokens}{most}" if most else "not enough for a single token"
            found.append(f"{enough} at this bid" if dear else enough)
        return found

    def _at_most(self) -> str:
        """How many tokens the base fee buys, of all answers together."""
        prompt_fee, token_fee = self._int("set_prompt_fee"), self._int("fee_per_token")
        if prompt_fee is None or not token_fee:
            return ""
        return (
            f", and the balance buys at most {max(0, (self.balance or 0) - prompt_fee) // token_fee} tokens"
        )

    def __str__(self) -> str:
        return "; ".join([self.detail.rstrip("."), *self.ways_out()])


class FeeTooLow(_Priced):
    """The static `fee` that was offered is below the base fee."""

    code, status = "fee_too_low", 402


class MaxFeeExceeded(_Priced):
    """The price is above the `max_fee` that was given."""

    code, status = "max_fee_exceeded", 402


class Forbidden(Refusal):
    """The key may not do this."""

    code, status = "forbidden", 403


class AccountSuspended(Refusal):
    """The account is suspended."""

    code, status = "account_suspended", 403


class NotFound(Refusal):
    """There is no such thing, or it belongs to somebody else."""

    code, status = "not_found", 404


class UnknownModel(Refusal):
    """The herd does not have this model."""

    code, status = "unknown_model", 404

    @property
    def models(self) -> tuple[str, ...]:
        """The models that there are, where the herder named them."""
        return tuple(str(name) for name in self.extra.get("models") or ())


class MethodNotAllowed(Refusal):
    """The address exists, but not with this method."""

    code, status = "method_not_allowed", 405


class Conflict(Refusal):
    """The thing exists already, or changed meanwhile."""

    code, status = "conflict", 409


class IdempotencyConflict(Refusal):
    """The idempotency key was used before, with another request."""

    code, status = "idempotency_conflict", 409


class _Limited(Refusal):
    """A refusal that names a limit."""

    @property
    def limit(self) -> int | None:
        """The limit that was crossed."""
        return self._int("limit")


class TooLarge(_Limited):
    """The body or the prompt is over the cap; `limit` in bytes."""

    code, status = "too_large", 413


class InvalidRequest(Refusal):
    """A field is wrong."""

    code, status = "invalid_request", 422

    @property
    def errors(self) -> tuple[tuple[str, str], ...]:
        """(field, message) for each field that is wrong."""
        rows = [row for row in self.extra.get("errors") or () if isinstance(row, dict)]
        return tuple((str(row.get("field", "")), str(row.get("message", ""))) for row in rows)


class ContextExceeded(_Limited):
    """Prompt and tokens together can never fit the model's context; `limit` in tokens."""

    code, status = "context_exceeded", 422


class RateLimited(Refusal):
    """Too many requests with this key."""

    code, status = "rate_limited", 429

    @property
    def retry_after(self) -> float | None:
        """Seconds after which to try again."""
        return float(value) if isinstance(value := self.extra.get("retry_after"), int | float) else None


class AnswerFailed(HerderError):
    """A job failed and was refunded, in an API that waits for answers; the calls of this library raise JobFailed."""

    code, status = "answer_failed", 500

    @property
    def job_id(self) -> str | None:
        """The job."""
        return str(value) if (value := self.extra.get("job_id")) else None

    @property
    def reason(self) -> str | None:
        """The code of what went wrong, as `Job.error.code`."""
        return str(value) if (value := self.extra.get("reason")) else None


class Overloaded(Unavailable):
    """The herd, or the herder that was asked, has no room just now; the detail says where."""

    code, status = "overloaded", 503


class NoWorker(Unavailable):
    """No live worker has the model."""

    code, status = "no_worker", 503


class RedisUnavailable(Unavailable):
    """The herder cannot reach its Redis."""

    code, status = "redis_unavailable", 503


class StoreUnavailable(Unavailable):
    """The content-addressed store is damaged, or takes no more."""

    code, status = "store_unavailable", 503


class NotReady(Unavailable):
    """The herd cannot take prompts yet."""

    code, status = "not_ready", 503


_BY_CODE: dict[str, type[HerderError]] = {
    kind.code: kind
    for kind in (
        *(BadRequest, MissingKey, InvalidKey, InsufficientFunds, FeeTooLow, MaxFeeExceeded, Forbidden),
        *(AccountSuspended, NotFound, UnknownModel, MethodNotAllowed, Conflict, IdempotencyConflict),
        *(TooLarge, InvalidRequest, ContextExceeded, RateLimited, AnswerFailed),
        *(Overloaded, NoWorker, RedisUnavailable, StoreUnavailable, NotReady),
    )
}


def error_class(code: str, status: int) -> type[HerderError]:
    """The class for a problem code; for one that this version does not know, the branch that the status says."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status in (502, 503, 504):
        return Unavailable
    return Refusal if 400 <= status < 500 else HerderError
