"""What callers get, as pydantic models. Times are milliseconds since the epoch, money is credits.

Multipliers are numbers with three decimals here and thousandths everywhere else. `shown` makes them from records.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, WithJsonSchema

from herder.lifecycle import Status
from herder.protocol import FinishReason
from herder.records import Role


class Chance(BaseModel):
    """A token and its log-probability; `text` is the token's own, U+FFFD where it is part of a character."""

    token: int
    text: str
    logprob: float


class TokenChances(Chance):
    """A token of an answer, and the likeliest ones of its place, most likely first."""

    top: list[Chance]


# There may be thousands, and they come as a worker wrote them: shown as they are.
Logprobs = Annotated[
    list[Any] | None,
    WithJsonSchema(
        {"anyOf": [{"type": "array", "items": TokenChances.model_json_schema()}, {"type": "null"}]}
    ),
]


class Choice(BaseModel):
    """One answer."""

    text: str
    output: Any
    reasoning: str | None
    finish_reason: FinishReason
    completion_tokens: int
    logprobs: Logprobs


class Result(BaseModel):
    """The answer; of a cancelled job, what there was of it. Of `n` answers the first, and all of them in `choices`."""

    text: str
    output: Any = Field(
        description="the JSON value that an answer with an `output_type` or a `response_format` is; else null"
    )
    reasoning: str | None = Field(description="what the model thought first, where its template marks that")
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int = Field(description="of all answers")
    cached_tokens: int
    logprobs: Logprobs = Field(
        description="one entry a token, where they were asked for; not in lists of jobs"
    )
    choices: list[Choice] = Field(description="every answer, in order; one for `n` = 1")


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class Job(BaseModel):
    """A job. Money in credits; `position` counts from 0 (next) while it is queued."""

    id: str = Field(examples=["job_0aZ3hK9xQvTn5WdE8rYb2c"])
    status: Status
    model: str
    tokens: int
    n: int = Field(description="so many answers, of so many `tokens` each at most")
    base_fee: int
    fee: int
    multiplier: float
    position: int | None
    attempt: int
    cancel_requested: bool
    submitted_ms: int
    started_ms: int | None
    ended_ms: int | None
    captured: int | None = Field(description="what was paid in the end")
    refunded: int | None = Field(description="what went back")
    result: Result | None
    error: JobError | None
    metadata: dict[str, str]
    warning: str | None = Field(description="why this may take long, for instance that no worker is live")
    webhook_url: str | None = Field(description="the job's own; null where it named none")
    batch_id: str | None = Field(description="the batch that it is an item of")
    custom_id: str | None = Field(description="the item's own name in its batch")


class SubmittedJob(Job):
    """A job that was just accepted, or the earlier one of the same Idempotency-Key."""

    balance: int = Field(description="what the account can still spend")


class Jobs(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[Job]
    next: str | None


class Reason(BaseModel):
    """Why a job would be refused; `code` is that of the refusal."""

    code: str
    detail: str


class Quote(BaseModel):
    """What a job would cost now. Where it would be refused for its price, `fee` is what would be needed."""

    model: str
    tokens: int
    base_fee: int
    fee: int
    multiplier: float
    position: int = Field(description="where in line it would stand, counted from 0")
    feasible: bool
    reason: Reason | None
    warning: str | None = Field(None, description="why it would wait for a worker that is not there")
    balance: int
    max_tokens: int | None = Field(
        description="most tokens of each answer that the balance buys at this multiplier; null: no end to it"
    )


class Account(BaseModel):
    """An account: what it can spend, and what its live jobs hold."""

    id: str
    available: int
    held: int
    suspended: bool
    created_ms: int


class Accounts(BaseModel):
    """Accounts, oldest first."""

    accounts: list[Account]
    next: str | None


class Entry(BaseModel):
    """One movement of credits between `mint`, `available`, `held` and `revenue`."""

    id: str
    kind: str
    source: str
    target: str
    amount: int
    job_id: str | None
    memo: str
    at_ms: int


class Entries(BaseModel):
    """A page of an account's ledger, newest first."""

    entries: list[Entry]
    next: str | None


class Key(BaseModel):
    """An API key without its secret."""

    id: str
    account: str
    role: Role
    label: str
    created_ms: int
    revoked: bool


class NewKey(Key):
    """A new API key; `key`, the secret, is shown this once."""

    key: str = Field(examples=["hk_0123456789abcdefghijABCDEFGHIJ1x2Y3z"])


class KeyList(BaseModel):
    """The keys of an account, oldest first."""

    keys: list[Key]


class Model(BaseModel):
    """A model of the herd; `context` is the most tokens (prompt and answer) of one job."""

    id: str
    context: int
    workers: int
    slots: int
    queue_length: int
    last_multiplier: float
    tokens_per_second: float
    description: str


class SameModel(BaseModel):
    """A model in the words of OpenAI's API; `created` is not known."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "llama-herder"


class OneModel(SameModel, Model):
    """A model in our words and OpenAI's."""


class Models(BaseModel):
    """Every model that a worker has served, in our words and OpenAI's."""

    models: list[Model]
    object: str = "list"
    data: list[SameModel]


class Worker(BaseModel):
    """A live worker, as it last reported."""

    id: str
    model: str
    slots: int
    busy: int
    tokens_per_second: float
    jobs_done: int
    last_seen_ms: int


class Workers(BaseModel):
    """The live workers."""

    workers: list[Worker]


class AuditedAccount(BaseModel):
    """An account's balances beside what its postings add up to."""

    account: str
    available: int
    available_folded: int
    held: int
    held_folded: int
    postings: int


class Audit(BaseModel):
    """Whether every balance is what its postings add up to, and every problem in words."""

    clean: bool
    rows: list[AuditedAccount]
    revenue: int
    revenue_folded: int
    mint: int
    mint_folded: int
    problems: list[str]


class Health(BaseModel):
    """The process is up."""

    status: str = "ok"


class Ready(BaseModel):
    """The herd takes prompts."""

    status: str = "ready"
    models: list[str]
    workers: int
