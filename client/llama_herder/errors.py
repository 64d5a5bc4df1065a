"""Every way a call can fail, as the caller meets it: one exception class for each problem code of the herder.

    HerderError                 code, status, detail, request_id, extra
    ├── Refusal                 the request was refused; it cost nothing and changed nothing
    │   ├── BadRequest, MissingKey, InvalidKey, Forbidden, AccountSuspended
    │   ├── InsufficientFunds (needed, base_fee, balance, max_affordable_tokens, affordable_items)
    │   ├── FeeTooLow (needed, base_fee), MaxFeeExceeded (needed, base_fee)
    │   ├── NotFound, UnknownModel (models), MethodNotAllowed, Conflict, IdempotencyConflict
    │   └── TooLarge (limit), InvalidRequest (errors), ContextExceeded (limit), RateLimited (retry_after)
    ├── Unavailable             nothing is wrong with the request: the same one may succeed later
    │   ├── Overloaded, NoWorker, RedisUnavailable, StoreUnavailable, NotReady
    │   ├── CannotConnect       nothing answers at the URL
    │   └── NoReply             something is there, but the reply did not come in time or broke off
    ├── JobEnded                JobFailed, JobCancelled, JobExpired: `run` got no answer; .job says how it ended
    ├── AnswerFailed            as JobFailed, of another API's call (job_id, reason)
    ├── OutputInvalid           `generate` got an answer that its class refuses; .job has it
    ├── WaitTimeout             the wait ended, the job lives on; .job_id, .job
    └── WebhookInvalid          what was received as a webhook is not one of the herder's

The leaves that have a problem code are in `problems`; here are the trunk and what only a client can meet. Knows no
HTTP library and no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_herder.types import Job


class HerderError(Exception):
    """A call that did not give what was asked for. `str(error)` is one line that says what to do.

    >>> try:
    ...     herder.run("What is a chatbot?", tokens=40, fee=1)
    ... except llama_herder.FeeTooLow as error:
    ...     print(error.code, error.needed)
    fee_too_low 50
    """

    code: str = "internal"
    status: int = 500

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.status = type(self).status if status is None else status
        self.request_id = request_id
        self.extra: dict[str, Any] = dict(extra or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Out of a process pool an error comes as it was raised, whatever its class is made of."""
        return _revived, (type(self), self.args, self.__dict__)

    def _int(self, name: str) -> int | None:
        return int(value) if isinstance(value := self.extra.get(name), int | float) else None


def _revived(kind: type[HerderError], args: tuple[Any, ...], state: Mapping[str, Any]) -> HerderError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class Refusal(HerderError):
    """The request was refused; it cost nothing and changed nothing."""


class Unavailable(HerderError):
    """Nothing is wrong with the request; the same one may succeed later."""

    code, status = "unavailable", 503


class CannotConnect(Unavailable):
    """Nothing answers at the URL; nothing was sent. `status` is 0: there was no reply."""

    code, status = "cannot_connect", 0


class NoReply(Unavailable):
    """The reply did not come in time, or broke off; what was asked may have happened. `status` is 0."""

    code, status = "no_reply", 0


class JobEnded(HerderError):
    """`run` got no answer; `.job` is the job as it ended."""

    code, status = "job_ended", 200

    def __init__(self, detail: str, job: Job) -> None:
        super().__init__(detail)
        self.job = job


class JobFailed(JobEnded):
    """The job failed and was refunded; `.job.error` says why."""

    code = "job_failed"


class JobCancelled(JobEnded):
    """The job was cancelled; `.job.text` is what it had produced."""

    code = "job_cancelled"


class JobExpired(JobEnded):
    """The job's time ran out."""

    code = "job_expired"


class OutputInvalid(HerderError):
    """The answer has the form that was asked for, and the class does not take it; `.job.output` is what came.

    It is paid for. What the class refuses beyond its JSON schema, say in the prompt; or ask again.
    """

    code, status = "output_invalid", 200

    def __init__(self, detail: str, job: Job) -> None:
        super().__init__(detail)
        self.job = job


class WaitTimeout(HerderError):
    """The wait is over, the job is not: it lives on, and `.job_id` fetches it. `.job` as last seen, if at all."""

    code, status = "wait_timeout", 0

    def __init__(self, detail: str, job_id: str, job: Job | None = None) -> None:
        super().__init__(detail)
        self.job_id = job_id
        self.job = job


class WebhookInvalid(HerderError):
    """What was received as a webhook is not the herder's, or is an old one; `status` (400) is what to answer."""

    code, status = "webhook_invalid", 400
