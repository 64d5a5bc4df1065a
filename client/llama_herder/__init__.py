"""The client library of Llama-Herder: submit prompts to a herd and read the answers.

    from llama_herder import Herder

    with Herder() as herder:                      # HERDER_URL, HERDER_API_KEY
        print(herder.run("What is a chatbot?", tokens=40).text)

Needs httpx and nothing else of the project.
"""

from llama_herder._async import AsyncHerder
from llama_herder._async_admin import AsyncAdmin
from llama_herder._async_batches import AsyncBatchResults
from llama_herder._async_stream import AsyncEventStream
from llama_herder._async_webhooks import AsyncWebhooks
from llama_herder._json import Page
from llama_herder._sync import Herder
from llama_herder._sync_admin import Admin
from llama_herder._sync_batches import BatchResults
from llama_herder._sync_stream import EventStream
from llama_herder._sync_webhooks import Webhooks
from llama_herder._verify import verify_webhook
from llama_herder.answers import Chance, Choice, Result, TokenChances
from llama_herder.batches import Batch, BatchCounts, BatchItem, BatchResult
from llama_herder.errors import (
    CannotConnect,
    HerderError,
    JobCancelled,
    JobEnded,
    JobExpired,
    JobFailed,
    NoReply,
    Refusal,
    Unavailable,
    WaitTimeout,
    WebhookInvalid,
)
from llama_herder.events import Done, Event, Queued, Restarted, Started, Tokens
from llama_herder.problems import (
    AccountSuspended,
    BadRequest,
    Conflict,
    ContextExceeded,
    FeeTooLow,
    Forbidden,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidKey,
    InvalidRequest,
    MaxFeeExceeded,
    MethodNotAllowed,
    MissingKey,
    NotFound,
    NotReady,
    NoWorker,
    Overloaded,
    RateLimited,
    RedisUnavailable,
    TooLarge,
    UnknownModel,
)
from llama_herder.types import (
    Account,
    Audit,
    Info,
    Job,
    JobError,
    Key,
    LedgerEntry,
    Message,
    Model,
    Quote,
    Reason,
    Worker,
)
from llama_herder.webhook_types import DefaultWebhook, Delivery, Endpoint, Endpoints

__all__ = [
    "Account",
    "AccountSuspended",
    "Admin",
    "AsyncAdmin",
    "AsyncBatchResults",
    "AsyncEventStream",
    "AsyncHerder",
    "AsyncWebhooks",
    "Audit",
    "BadRequest",
    "Batch",
    "BatchCounts",
    "BatchItem",
    "BatchResult",
    "BatchResults",
    "CannotConnect",
    "Chance",
    "Choice",
    "Conflict",
    "ContextExceeded",
    "DefaultWebhook",
    "Delivery",
    "Done",
    "Endpoint",
    "Endpoints",
    "Event",
    "EventStream",
    "FeeTooLow",
    "Forbidden",
    "Herder",
    "HerderError",
    "IdempotencyConflict",
    "Info",
    "InsufficientFunds",
    "InvalidKey",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobEnded",
    "JobError",
    "JobExpired",
    "JobFailed",
    "Key",
    "LedgerEntry",
    "MaxFeeExceeded",
    "Message",
    "MethodNotAllowed",
    "MissingKey",
    "Model",
    "NoReply",
    "NoWorker",
    "NotFound",
    "NotReady",
    "Overloaded",
    "Page",
    "Queued",
    "Quote",
    "RateLimited",
    "Reason",
    "RedisUnavailable",
    "Refusal",
    "Restarted",
    "Result",
    "Started",
    "TokenChances",
    "Tokens",
    "TooLarge",
    "Unavailable",
    "UnknownModel",
    "WaitTimeout",
    "WebhookInvalid",
    "Webhooks",
    "Worker",
    "verify_webhook",
]
