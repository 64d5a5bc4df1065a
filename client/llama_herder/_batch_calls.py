"""Which request each call on batches is: prompts in any of their shapes to one body, as JSON or as JSON lines.

Pure: builds `Call` values, as `_calls` does for single jobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from llama_herder._calls import chat, keyed, kind_of, may_be_there, paging, part, stops
from llama_herder._core import Call, Send, json_bytes
from llama_herder._json import Page, odd_number, page_of
from llama_herder.batches import Batch, Charge
from llama_herder.problems import InvalidRequest

ITEMS_MAX = 10_000
"""What a herder takes in one JSON body, unless it was set otherwise; more is sent as JSON lines."""

TAKING_S_MAX = 300.0
TAKING_S_PER_ITEM = 0.01
"""How long a herder may be silent over a batch: every prompt of it is rendered, counted and stored."""

_PATH = "/v1/batches"


@dataclass(frozen=True)
class SendLines(Send):
    """A request whose body is JSON lines."""

    lines: bytes = b""

    def content(self) -> bytes:
        return self.lines


def batch(
    items: object,
    tokens: int | None,
    options: Mapping[str, Any],
    *,
    key: str | None,
    charge: Charge,
    webhook_per_item: bool,
) -> Call[Batch]:
    """Pay for many prompts. Repeatable: the key makes the herder answer a repetition with the same batch."""
    asked = _items(items)
    shared = {"tokens": tokens, **options, "charge": charge, "webhook_per_item": webhook_per_item}
    if shared.get("stop") is not None:
        shared["stop"] = stops(shared["stop"])
    left_out: dict[str, Any] = {"charge": "all_or_nothing", "webhook_per_item": False, "raw": False}
    body = {
        name: value
        for name, value in shared.items()
        if value is not None and (name not in left_out or left_out[name] != value)
    }
    if len(asked) > ITEMS_MAX:
        return upload(b"\n".join(json_bytes(item, f"items.{at}") for at, item in enumerate(asked)), body, key)
    if all(item.keys() == {"prompt"} for item in asked):
        body["prompts"] = [item["prompt"] for item in asked]
    else:
        body["items"] = asked
    return _submission(Send("POST", _PATH, body=body, headers=keyed(key), read_s=_taking_s(len(asked))))


def upload(lines: bytes, options: Mapping[str, Any], key: str | None) -> Call[Batch]:
    """The same for one item a line; the herder's refusals count these lines from 1."""
    if odd := odd_number(options):  # a query would take it
        raise InvalidRequest(odd)
    headers = {**keyed(key), "Content-Type": "application/jsonl"}
    params = {name: _in_query(value) for name, value in options.items() if value is not None}
    taking_s = _taking_s(lines.count(b"\n") + 1)
    return _submission(SendLines("POST", _PATH, params, headers=headers, read_s=taking_s, lines=lines))


def _taking_s(items: int) -> float:
    return min(TAKING_S_MAX, items * TAKING_S_PER_ITEM)


def _submission(send: Send) -> Call[Batch]:
    return Call(send, Batch.from_json, unsure=may_be_there("batch", send.headers))


def _in_query(value: Any) -> str | list[str]:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return format(Decimal(str(value)), "f")  # 0.00001, not 1e-05
    if isinstance(value, Mapping):
        return json.dumps(dict(value), ensure_ascii=False, separators=(",", ":"))
    if any(isinstance(one, Mapping) for one in value):
        return json.dumps(list(value), ensure_ascii=False, separators=(",", ":"))
    return [str(one) for one in value]


def _items(items: object) -> list[dict[str, Any]]:
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f'a batch is a list of prompts such as ["…", "…"], not {kind_of(items)}')
    return [_item(one, at) for at, one in enumerate(items)]


def _item(one: object, at: int) -> dict[str, Any]:
    """One item as the herder takes it; whatever else was passed is told apart here, before anything is sent."""
    if isinstance(one, str):
        return {"prompt": one}
    if isinstance(one, Mapping):
        if "prompt" in one or "messages" in one:
            return {name: value for name, value in one.items() if value is not None}
        if "role" in one:
            raise TypeError("one chat is not a batch: put it into a list, as one of its prompts")
        raise TypeError(f"item {at} has neither a prompt nor messages")
    try:
        return {"messages": chat(one, "a prompt must be text, or")}
    except TypeError as error:
        raise TypeError(f"item {at}: {error}") from None


def batch_status(batch_id: str) -> Call[Batch]:
    """A batch as it is now."""
    return Call(Send("GET", f"{_PATH}/{part(batch_id)}"), Batch.from_json)


def batches(limit: int | None, cursor: str | None) -> Call[Page[Batch]]:
    """The account's batches, newest first."""
    return Call(Send("GET", _PATH, params=paging(limit, cursor)), page_of("batches", Batch.from_json))


def cancel_batch(batch_id: str) -> Call[Batch]:
    """Take what is left of a batch out of the line."""
    return Call(Send("DELETE", f"{_PATH}/{part(batch_id)}"), Batch.from_json)


def results(batch_id: str, cursor: int, follow: bool) -> Send:
    """The ended items from the cursor on, one a line."""
    params: dict[str, str | int] = {"cursor": cursor, "follow": "true" if follow else "false"}
    headers = {"Accept": "application/jsonl, application/problem+json", "Accept-Encoding": "identity"}
    return Send("GET", f"{_PATH}/{part(batch_id)}/results", params, headers=headers)
