"""The client library of Llama-Herder: submit prompts to a herd and read the answers.

>>> import llama_herder
>>> llama_herder.run("What is a chatbot?", 20)
'A chatbot is a computer program that talks with people in everyday language.'

The functions of the package use a default client, from HERDER_URL and HERDER_API_KEY. Your own is a `Herder`, or for
asyncio an `AsyncHerder`:

>>> with llama_herder.Herder() as herder:
...     job = herder.run("What is a chatbot?", tokens=40)
>>> job.captured + job.refunded == job.fee
True

Needs httpx and nothing else of the project.
"""

from llama_herder._async import AsyncHerder
from llama_herder._async_admin import AsyncAdmin
from llama_herder._async_batches import AsyncBatchResults
from llama_herder._async_chat import AsyncChat
from llama_herder._async_stream import AsyncEventStream
from llama_herder._async_webhooks import AsyncWebhooks
from llama_herder._default import chat, default_herder, generate, info, quote, run, set_default_herder, stream
from llama_herder._default import map as map  # noqa: A004 (not one of __all__)
from llama_herder._json import Page
from llama_herder._sync import Herder
from llama_herder._sync_admin import Admin
from llama_herder._sync_batches import BatchResults
from llama_herder._sync_chat import Chat
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
    OutputInvalid,
    Refusal,
    Unavailable,
    WaitTimeout,
    WebhookInvalid,
)
from llama_herder.events import Done, Event, Queued, Restarted, Started, Tokens
from llama_herder.problems import (
    AccountSuspended,
    AnswerFailed,
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
    StoreUnavailable,
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
    "AnswerFailed",
    "AsyncAdmin",
    "AsyncBatchResults",
    "AsyncChat",
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
    "Chat",
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
    "OutputInvalid",
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
    "StoreUnavailable",
    "TokenChances",
    "Tokens",
    "TooLarge",
    "Unavailable",
    "UnknownModel",
    "WaitTimeout",
    "WebhookInvalid",
    "Webhooks",
    "Worker",
    "chat",
    "default_herder",
    "generate",
    "info",
    "quote",
    "run",
    "set_default_herder",
    "stream",
    "verify_webhook",
]
