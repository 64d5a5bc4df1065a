"""Every message that crosses a process, in ring order: ask, lease, chunk, settlement, event, record.

Frozen dataclasses with a JSON form; no IO, no Redis, no HTTP. Money is integer credits, times are integer
milliseconds since the epoch, multipliers are thousandths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from herder.brief import Brief
from herder.choices import Choice
from herder.lifecycle import Status
from herder.pricing import Terms


class FinishReason(StrEnum):
    """Why an answer ends where it does."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


# --- 1. client → herder → submit.lua -------------------------------------------------------------------


@dataclass(frozen=True)
class Webhook:
    """Where the end of a job or of a batch is told: a URL, and the endpoint (its secrets) that it belongs to."""

    url: str
    endpoint: str


@dataclass(frozen=True)
class Ask:
    """A priced, rendered prompt, ready to be held and queued.

    `tokens` are those of one answer, of which the brief may want several; `kv_tokens` is an estimate of the KV cells
    that all of it will occupy; `offered` tells a bid or a static fee from an automatic price; `chain` has the hashes of
    the prompt's longer and longer beginnings, by which a worker that still holds one is found; `marks` is how reasoning
    is told from the rest of the answer, as `reasoning` writes it. With `presence_ms` the caller cannot come back: where
    no herder says for so long that they still wait (`Broker.present`), the job is cancelled. 0: it runs all the same.
    `run` is the run of a module that it belongs to, as `herder.api.runs` writes it; `ao` the reference of the AO
    message that it came in, which is answered with another one.
    """

    job_id: str
    account: str
    key_id: str
    model: str
    brief: Brief
    tokens: int
    terms: Terms
    multiplier_milli: int
    offered: bool
    price_version: int
    kv_tokens: int
    chain: tuple[str, ...] = ()
    marks: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    request_hash: str = ""
    webhook: Webhook | None = None
    presence_ms: int = 0
    run: str | None = None
    ao: str | None = None


@dataclass(frozen=True)
class Accepted:
    """What submit.lua answered: the job (an earlier one where `replayed`), and its place in line, counted from 0.

    Of a job that was taken just now also when that was, and what its account has left to spend.
    """

    job_id: str
    position: int
    replayed: bool
    submitted_ms: int | None = None
    available: int | None = None


# --- 2. lease.lua → worker -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """One job in a worker's hands. `attempt` is the fence: it goes back with every message about this job."""

    job_id: str
    attempt: int
    account: str
    brief: Brief
    tokens: int
    terms: Terms


@dataclass(frozen=True)
class Taken:
    """What a worker was given. `again_ms`: when to ask again, since a job was left to another for so long; or None."""

    leases: list[Lease]
    again_ms: int | None = None


class RenewReply(StrEnum):
    """What a renewal learns of each job."""

    OK = "OK"
    CANCEL = "CANCEL"  # held, but the client has asked to stop it
    LOST = "LOST"  # leased again by another, or ended: drop it, its result is not wanted


# --- 3. worker → chunk.lua, settle.lua, release.lua ------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Consecutive tokens of one attempt: the index of the first (from 0), how many, and their text.

    Where a job has several answers, `choice` says which of them it belongs to; the index counts the tokens of all, in
    the order in which they are sent. `logprobs`, of a job that asked for them, are the entries (`choices.told_text`) of
    the tokens whose own text ends here: of one that is held back they come later, of a stop string's never.
    """

    job_id: str
    attempt: int
    first_index: int
    token_count: int
    text: str
    choice: int | None = None
    logprobs: str | None = None


class ChunkReply(StrEnum):
    """OK and REPEAT are fine; CANCEL is fine too but asks to stop; STALE and GAP mean that nothing was written."""

    OK = "OK"
    REPEAT = "REPEAT"
    CANCEL = "CANCEL"
    STALE = "STALE"
    GAP = "GAP"


class Outcome(StrEnum):
    """How a worker ends a job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Settlement:
    """The end of an attempt. `captured` is computed with `pricing.capture` (0 for FAILED); `error_code` only there.

    `completion_tokens` are those of all answers, `text` and `finish_reason` the first one's; `choices` (of several
    answers) and `logprobs` (where they were asked for) are JSON of `herder.choices`.
    """

    job_id: str
    attempt: int
    outcome: Outcome
    text: str
    finish_reason: FinishReason | None
    prompt_tokens: int
    completion_tokens: int
    captured: int
    cached_tokens: int = 0
    error_code: str | None = None
    error_message: str | None = None
    choices: str | None = None
    logprobs: str | None = None


class SettleReply(StrEnum):
    """OK once; REPEAT for the same (job, attempt) again; STALE when another attempt owns or ended the job."""

    OK = "OK"
    REPEAT = "REPEAT"
    STALE = "STALE"


# --- 4. worker → registry --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelCard:
    """What a worker tells the herd of its model.

    `context` is the most tokens (prompt + answer) one job may occupy. `max_piece_bytes` is the longest piece of the
    vocabulary: a text of B bytes has at least B / max_piece_bytes and at most B + `special_margin` tokens.
    """

    model: str
    context: int
    vocab_size: int
    max_piece_bytes: int
    template: str | None
    bos_token: str
    eos_token: str
    adds_bos: bool
    description: str = ""
    special_margin: int = 8


@dataclass(frozen=True)
class WorkerStats:
    """What a heartbeat carries: slots in use and free, and tokens a second over the recent busy time."""

    slots: int
    busy: int
    tokens_per_second: float
    jobs_done: int = 0
    kv_tokens: int = 0
    kv_used: int = 0


# --- 5. event log → client -------------------------------------------------------------------------------


class EventKind(StrEnum):
    """Kinds of event in a job's log."""

    QUEUED = "queued"
    STARTED = "started"
    TOKENS = "tokens"
    RESTARTED = "restarted"
    DONE = "done"


@dataclass(frozen=True)
class Event:
    """One entry of a job's event log; `event_id` is the stream id, which is also the SSE id."""

    event_id: str
    kind: EventKind
    fields: dict[str, str]


# --- 6. reads --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobRecord:
    """A job as the reads show it; money in credits."""

    job_id: str
    account: str
    model: str
    status: Status
    tokens: int
    base: int
    fee: int
    multiplier_milli: int
    attempt: int
    submitted_ms: int
    started_ms: int | None
    ended_ms: int | None
    cancel_requested: bool
    captured: int | None
    refunded: int | None
    text: str | None
    finish_reason: FinishReason | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    error_code: str | None
    error_message: str | None
    metadata: dict[str, str]
    n: int = 1
    choices: tuple[Choice, ...] = ()
    logprobs: str | None = None
    worker: str | None = None
    webhook_url: str | None = None
    batch: str | None = None
    batch_index: int | None = None
    custom_id: str | None = None
    marks: str | None = None
    typed: bool = False
    run: str | None = None
    ao: str | None = None
    manner: str | None = None
