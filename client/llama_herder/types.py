"""What the calls return: frozen dataclasses read from the herder's JSON.

Money is integer credits, times are integer milliseconds since the epoch. Fields that this version does not know
are ignored, fields that are missing take their default; `raw` is the JSON as it came. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from llama_herder._json import FromJson
from llama_herder.answers import Form, Result, Sampling

ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


class Message(TypedDict):
    """One turn of a chat: `{"role": "user", "content": "What is a chatbot?"}`.

    The roles are system, user, assistant and tool. `content` may be None beside the assistant's `tool_calls`.
    """

    role: str
    content: str | None
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


class Chatting(TypedDict, total=False):
    """How a prompt becomes what the model reads: a system prompt, tools, a template of the herd's, or none at all."""

    raw: bool
    system: str | None
    tools: Sequence[Mapping[str, Any]] | None
    template: str | None


class Bid(TypedDict, total=False):
    """What decides the price: a multiplier, or a static fee, or neither (the automatic price); and a ceiling."""

    model: str | None
    multiplier: float | None
    fee: int | None
    max_fee: int | None


class Untyped(Bid, Sampling, Chatting, total=False):
    """Everything a job can have beside its prompt, its tokens and its form."""

    share_prefix: bool
    cache_prompt: bool | None
    stop: str | Sequence[str]
    metadata: Mapping[str, str] | None
    webhook_url: str | None


class Options(Untyped, Form, total=False):
    """Everything a job can have beside its prompt and its tokens."""


@dataclass(frozen=True)
class JobError(FromJson):
    """Why a job failed."""

    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class Job(FromJson):
    """A prompt that was paid for. `fee` is what is held for it; `captured` + `refunded` = `fee` once it has ended.

    `position` is its place in line, counted from 0, while it is queued; `balance` what was left after submitting it.
    `batch_id` and `custom_id` are there for an item of a batch.
    """

    id: str = ""
    status: str = ""
    model: str = ""
    tokens: int = 0
    n: int = 1
    base_fee: int = 0
    fee: int = 0
    multiplier: float = 1.0
    position: int | None = None
    attempt: int = 0
    cancel_requested: bool = False
    submitted_ms: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    captured: int | None = None
    refunded: int | None = None
    result: Result | None = None
    error: JobError | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    warning: str | None = None
    balance: int | None = None
    webhook_url: str | None = None
    batch_id: str | None = None
    custom_id: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it has come to its end: succeeded, failed, cancelled or expired."""
        return self.status in ENDED

    @property
    def text(self) -> str:
        """The answer; empty as long as there is none."""
        return self.result.text if self.result else ""

    @property
    def output(self) -> Any:
        """The JSON value that an answer with an `output_type` or a `response_format` is; None for any other."""
        return self.result.output if self.result else None

    @property
    def reasoning(self) -> str:
        """What the model thought before it answered; empty where its chat template does not mark that."""
        return (self.result.reasoning or "") if self.result else ""

    @property
    def message(self) -> Message:
        """The answer as the next turn of its chat: `{"role": "assistant", "content": …}`."""
        return {"role": "assistant", "content": self.text}

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, kind in (("result", Result), ("error", JobError)):
            if name in values:
                values[name] = kind.from_json(values[name])
        return values


@dataclass(frozen=True)
class Reason(FromJson):
    """Why a quoted job would be refused."""

    code: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Quote(FromJson):
    """What a job would cost now, where in line it would stand, and whether it would be accepted."""

    model: str = ""
    tokens: int = 0
    base_fee: int = 0
    fee: int = 0
    multiplier: float = 1.0
    position: int | None = None
    feasible: bool = True
    reason: Reason | None = None
    warning: str | None = None
    balance: int | None = None
    max_tokens: int | None = None

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "reason" in values:
            values["reason"] = Reason.from_json(values["reason"])
        return values


@dataclass(frozen=True)
class Model(FromJson):
    """A model of the herd; `context` is the most tokens (prompt and answer) that one job may have."""

    id: str = ""
    context: int = 0
    workers: int = 0
    slots: int = 0
    queue_length: int = 0
    last_multiplier: float = 1.0
    tokens_per_second: float = 0.0
    description: str = ""


@dataclass(frozen=True)
class Worker(FromJson):
    """A worker of the herd, as it last reported."""

    id: str = ""
    model: str = ""
    slots: int = 0
    busy: int = 0
    tokens_per_second: float = 0.0
    jobs_done: int = 0
    last_seen_ms: int = 0


@dataclass(frozen=True)
class Info(FromJson):
    """The herd's price list and how busy it is: fee = (set_prompt_fee + fee_per_token × tokens) × multiplier."""

    name: str = ""
    version: str = ""
    set_prompt_fee: int = 0
    fee_per_token: int = 0
    last_multiplier: float = 1.0
    queue_length: int = 0
    models: tuple[str, ...] = ()
    workers: int = 0
    slots: int = 0
    tokens_per_second: float = 0.0

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "models" in values:
            values["models"] = tuple(str(name) for name in values["models"])
        return values


@dataclass(frozen=True)
class Account(FromJson):
    """An account: what it can spend (`available`) and what its live jobs hold (`held`)."""

    id: str = ""
    available: int = 0
    held: int = 0
    suspended: bool = False
    created_ms: int = 0


@dataclass(frozen=True)
class LedgerEntry(FromJson):
    """One movement of credits: deposit, adjust, hold, capture or void."""

    id: str = ""
    kind: str = ""
    source: str = ""
    target: str = ""
    amount: int = 0
    job_id: str | None = None
    memo: str = ""
    at_ms: int = 0


@dataclass(frozen=True)
class Key(FromJson):
    """An API key. `key`, the secret, is there once only: in the answer that made it; `repr` hides it."""

    id: str = ""
    account: str = ""
    role: str = ""
    label: str = ""
    created_ms: int = 0
    revoked: bool = False
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Audit(FromJson):
    """Whether every balance is what its postings add up to, and every problem in words."""

    clean: bool = False
    problems: tuple[str, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(item) if isinstance(item, list) else item for name, item in values.items()}
