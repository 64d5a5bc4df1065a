"""Every Redis key of the herd: its pattern, its type, how long it lives. Lua's key functions are made from this table.

`{}` stands for one argument. Lifetimes: `permanent` keys stay; `live` keys go when what they describe goes (an empty
queue, an ended job); `ttl` keys always carry an expiry; `job` keys have none while the job is live and one afterwards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Key:
    """One kind of key."""

    pattern: str
    redis_type: str
    lifetime: str
    holds: str


TABLE: dict[str, Key] = {
    "schema": Key("schema", "string", "permanent", "the schema version"),
    "time": Key(
        "time", "hash", "permanent", "the latest time any script has seen, so that it never runs back"
    ),
    "sequence": Key("sequence", "string", "permanent", "the last sequence number given to a job"),
    "server": Key(
        "server", "hash", "permanent", "Redis's run id, and until when nothing lapses after a restart"
    ),
    "prices": Key("prices", "hash", "permanent", "the price list and its version"),
    "books": Key("books", "hash", "permanent", "balances of revenue and the mint"),
    "accounts": Key("accounts", "zset", "permanent", "account ids by creation time"),
    "account": Key("account:{}", "hash", "permanent", "balances, suspended, created_ms, default webhook"),
    "account_keys": Key("account-keys:{}", "hash", "permanent", "key id → HMAC"),
    "account_jobs": Key("account-jobs:{}", "zset", "permanent", "job ids by sequence number"),
    "account_ao": Key(
        "account-ao:{}",
        "zset",
        "permanent",
        "those that came in AO messages, until some time after they are gone",
    ),
    "deposits": Key("deposits:{}", "hash", "permanent", "deposit id → amount, so that a deposit counts once"),
    "ledger": Key("ledger:{}", "stream", "permanent", "the account's postings"),
    "key": Key("key:{}", "hash", "permanent", "an API key by its HMAC"),
    "models": Key("models", "set", "permanent", "models that a worker has ever served"),
    "model": Key("model:{}", "hash", "permanent", "frontier, speed, last multiplier"),
    "card": Key("card:{}", "string", "permanent", "the model card, JSON"),
    "vocab": Key("vocab:{}", "string", "permanent", "the vocabulary as a GGUF without tensors"),
    "queue": Key("queue:{}", "zset", "live", "queued jobs of a model by rank"),
    "clocks": Key("clocks:{}", "zset", "live", "each account's virtual clock for a model"),
    "prefixes": Key(
        "prefixes:{}",
        "hash",
        "ttl",
        "beginning of a prompt → workers that took a job with it, or the one chain that has it",
    ),
    "prefixes_before": Key("prefixes-before:{}", "hash", "ttl", "the same, of the time before"),
    "workers": Key("workers", "zset", "live", "worker ids by last heartbeat"),
    "model_workers": Key("model-workers:{}", "zset", "live", "workers of a model by last heartbeat"),
    "worker": Key("worker:{}", "hash", "ttl", "what a worker said of itself"),
    "waiting": Key("waiting", "zset", "live", "workers that wait for a model, by when they last said so"),
    "appointed": Key(
        "appointed:{}",
        "hash",
        "ttl",
        "the model of a worker that was started without one, or why it has none",
    ),
    "worker_jobs": Key("worker-jobs:{}", "set", "live", "jobs a worker holds"),
    "leases": Key("leases", "zset", "live", "leased jobs by when the lease lapses"),
    "presence": Key(
        "presence", "zset", "live", "jobs and batches whose callers wait at a herder, by when that lapses"
    ),
    "job": Key("job:{}", "hash", "job", "the job"),
    "input": Key("input:{}", "string", "job", "what the worker needs of it, JSON"),
    "events": Key("events:{}", "stream", "job", "its event log"),
    "idempotency": Key("idempotency:{}:{}", "hash", "ttl", "request hash and job of an Idempotency-Key"),
    "callbacks": Key("callbacks", "stream", "permanent", "one entry for each job that ended"),
    "ended": Key("ended", "zset", "live", "ended jobs and batches by end time, until their record goes"),
    "batch": Key("batch:{}", "hash", "job", "a batch: what it asked for, how far it is, what it has cost"),
    "batch_items": Key("batch-items:{}", "hash", "job", "items not yet in the queue: index → item, JSON"),
    "batch_results": Key("batch-results:{}", "list", "job", "indexes of ended items, in order of their end"),
    "batches": Key(
        "batches", "zset", "live", "batches with items to put in line or to cancel, by creation time"
    ),
    "account_batches": Key("account-batches:{}", "zset", "permanent", "batch ids by sequence number"),
    "file": Key("file:{}", "hash", "ttl", "a file that a caller has left here, without what is in it"),
    "file_text": Key("file-text:{}", "list", "ttl", "what is in it, compressed, in parts"),
    "account_files": Key("account-files:{}", "zset", "ttl", "an account's files by when their time is over"),
    "endpoint": Key("endpoint:{}", "hash", "permanent", "a webhook address and its secrets"),
    "endpoints": Key("endpoints:{}", "hash", "permanent", "an account's webhook addresses → endpoint id"),
    "delivery": Key("delivery:{}", "hash", "job", "a webhook: its body, its attempts, what came of them"),
    "deliveries": Key("deliveries:{}", "zset", "permanent", "delivery ids of an account by creation time"),
    "unwritten": Key(
        "unwritten", "zset", "live", "deliveries without a body yet, by when it is to be made at the latest"
    ),
    "due_lanes": Key(
        "due-lanes",
        "zset",
        "live",
        "lanes (account@host/endpoint) by when something can next be done for them",
    ),
    "due": Key("due:{}", "zset", "live", "a lane's deliveries by when their next attempt is due"),
    "flights": Key("flights:{}", "zset", "live", "a lane's attempts under way by when they are given up"),
    "flying": Key(
        "flying:{}",
        "zset",
        "ttl",
        "attempts under way of an account, or of account@host, by when they are given up",
    ),
    "failures": Key(
        "failures:{}", "hash", "ttl", "how often in a row a lane failed, when last, and since when it is down"
    ),
    "delivered": Key("delivered", "zset", "live", "ended deliveries by end time, until their record goes"),
    "rate": Key("rate:{}", "string", "ttl", "a rate limit's theoretical arrival time"),
    "batch_bell": Key("bell:batch:{}", "channel", "live", "rings when an item of a batch ends"),
    "job_bell": Key("bell:job:{}", "channel", "live", "rings with each event of a job but the first"),
    "queue_bell": Key("bell:queue:{}", "channel", "live", "rings when a model's queue gets a job"),
    "worker_bell": Key("bell:worker:{}", "channel", "live", "rings when a job of this worker is to stop"),
}


class Keys:
    """Key names under one prefix: `Keys("lh")("job", job_id)`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def __call__(self, name: str, *args: str) -> str:
        """The full key; `args` fill the braces of its pattern."""
        return f"{self.prefix}:{TABLE[name].pattern.format(*args)}"


def lua_key_functions() -> str:
    """Lua source of `K`: one function a key, so that both languages name keys from the one table."""
    lines = ["local K = {}"]
    for name, key in TABLE.items():
        names = [f"x{i}" for i in range(key.pattern.count("{}"))]
        parts = re.split(r"\{\}", key.pattern)
        expression = f"PREFIX .. ':{parts[0]}'"
        for argument, rest in zip(names, parts[1:], strict=True):
            expression += f" .. {argument}" + (f" .. '{rest}'" if rest else "")
        lines.append(f"function K.{name}({', '.join(names)}) return {expression} end")
    return "\n".join(lines) + "\n"


def leaked(prefix: str, key: str, ttl_ms: int, live: frozenset[str]) -> bool:
    """Whether a key that exists should not: unknown to the table, or without the expiry its kind must have.

    `ttl_ms` is Redis PTTL (−1: no expiry); `live` the ids of live jobs and deliveries, and of batches that are kept
    with all their items.
    """
    if not key.startswith(prefix + ":"):
        return False
    rest = key[len(prefix) + 1 :]
    for kind in TABLE.values():
        match = re.fullmatch(re.escape(kind.pattern).replace(r"\{\}", "(.+)"), rest)
        if match is None:
            continue
        if kind.lifetime in ("permanent", "live"):
            return False
        if kind.lifetime == "job" and match.group(1) in live:
            return False
        return ttl_ms == -1
    return True
