"""Reading a batch: one JSON object, or JSON lines with the options in the query; every fault named by item or line.

A batch is large, so it is read in slices between which other requests have their turn, and what is read is let go of
as soon as it is checked: no item is kept twice. Knows no price and no template.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from herder.api.batch_bodies import BATCH_ONLY, INHERITED, BatchItem, BatchOptions
from herder.api.bodies import checked_against
from herder.api.chats import Inherited, tools_in
from herder.api.faults import Faults
from herder.api.problems import invalid
from herder.api.reading import object_in, validated
from herder.errors import BadRequest, HerderError, InvalidRequest
from herder.pricing import MILLI
from herder.settings import Settings

LINES_TYPES = (
    "application/jsonl",
    "application/x-ndjson",
    "application/x-jsonlines",
    "application/jsonlines",
)
AS_LINES = f"JSON lines are sent with `Content-Type: {LINES_TYPES[0]}`"
SLICE = 200  # items between two turns of the event loop
_INT = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_INTS = ("tokens", "fee", "max_fee", "seed", "top_k", "penalty_tokens", "logprobs", "n")
_NUMBERS = (
    "multiplier", "temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "frequency_penalty",
    "presence_penalty",
)  # fmt: skip
_BOOLS = ("raw", "webhook_per_item", "ignore_eos", "share_prefix", "cache_prompt")
_OBJECTS = ("metadata", "logit_bias", "output_type", "response_format")
_TEXTS = ("model", "charge", "webhook_url", "system", "template")


@dataclass(frozen=True, slots=True)
class Draft:
    """One item, checked, not yet rendered; `where` is how a caller finds it: `item 3`, `line 4`."""

    where: str
    body: BatchItem


@dataclass(frozen=True)
class BatchAsk:
    """A batch as far as it is right in itself: `faults` has the rest, and what is found later goes there too.

    `digest` is its meaning, for the Idempotency-Key; empty where there is none. `fit`: the tokens of an item are as
    many as its prompt leaves room for, up to those that it has. `openai` as in a `Charge`; `manners` are those of
    items, by custom_id.
    """

    options: BatchOptions
    drafts: list[Draft]
    digest: str
    faults: Faults
    fit: bool = False
    openai: str | None = None
    manners: Mapping[str, str] = field(default_factory=dict)


async def batch_of_object(
    body: bytearray, query: Iterable[tuple[str, str]], settings: Settings, *, digest: bool
) -> BatchAsk:
    """A batch from one JSON object; options may stand in the query as well, but none in both places.

    Empties `body`. Raises BadRequest, InvalidRequest, TooLarge.
    """
    try:  # parsed aside: a large body would hold up everybody else's requests
        value = await asyncio.to_thread(object_in, body)
    except BadRequest as error:
        raise BadRequest(f"{error.detail}; {AS_LINES}") from None
    body.clear()
    given = from_query(query)
    for name in given:
        if name in value:
            raise invalid([{"loc": (name,), "type": "", "msg": "is given in the query and in the body"}])
    prompts, items = value.pop("prompts", None), value.pop("items", None)
    listed = _one_list(prompts, items, settings.batch_items_max, settings.batch_upload_items_max)
    value |= given
    options = _options(value, settings)
    rows = ((f"item {index}", row) for index, row in enumerate(_emptied(listed)))
    return await _batch(options, value, rows, settings, digest=digest)


async def batch_of_prompts(
    value: dict[str, Any], prompts: list[str], settings: Settings, *, digest: bool
) -> BatchAsk:
    """A batch from its options and its prompts. Empties `prompts`. Raises InvalidRequest, TooLarge."""
    options = _options(value, settings)
    rows = ((f"item {index}", {"prompt": text}) for index, text in enumerate(_emptied(prompts)))
    return await _batch(options, value, rows, settings, digest=digest)


async def batch_of_items(
    value: dict[str, Any], items: Iterator[tuple[str, dict[str, Any]]], settings: Settings, *, digest: bool
) -> BatchAsk:
    """A batch from its options and its items, each with how a caller finds it. Raises InvalidRequest, TooLarge."""
    return await _batch(_options(value, settings), value, items, settings, digest=digest)


async def batch_of_lines(
    body: bytearray, query: Iterable[tuple[str, str]], settings: Settings, *, digest: bool
) -> BatchAsk:
    """A batch from JSON lines, options from the query. Empties `body`. Raises InvalidRequest, TooLarge."""
    value = from_query(query)
    options = _options(value, settings)
    most = settings.batch_upload_items_max
    if body.count(b"\n") > 2 * most + 1_000 or sum(1 for _ in _lines(body)) > most:
        raise _too_many(most, "HERDER_BATCH_UPLOAD_ITEMS_MAX", "send them as several batches")
    ask = await _batch(options, value, _lines(body), settings, digest=digest)
    body.clear()
    return ask


def from_query(query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Options as JSON would have had them. What is no number stays a text, which the options then refuse."""
    given: dict[str, Any] = {}
    for name, text in query:
        if name == "stop":
            given.setdefault("stop", []).append(text)
            continue
        if name in given:
            raise invalid([{"loc": (name,), "type": "", "msg": "is given twice"}])
        given[name] = text
        if name in _INTS and _INT.fullmatch(text):
            given[name] = int(text)
        elif name in _NUMBERS and _NUMBER.fullmatch(text):
            given[name] = Decimal(text)
        elif name in _BOOLS and text in ("true", "false"):
            given[name] = text == "true"
        elif name in _OBJECTS:
            given[name] = object_in(text.encode("utf-8", "surrogatepass"), name)
        elif name == "tools":
            given[name] = tools_in(text)
    return given


def _one_list(prompts: Any, items: Any, most: int, most_uploaded: int) -> list[Any]:
    """The items, however they were written."""
    if prompts is not None and items is not None:
        raise InvalidRequest("`prompts` and `items` exclude each other: send one of them", errors=[])
    if prompts is None and items is None:
        raise InvalidRequest(f"`prompts` or `items` is missing; {AS_LINES}", errors=[])
    name, listed = ("prompts", prompts) if items is None else ("items", items)
    if not isinstance(listed, list) or not listed:
        raise invalid([{"loc": (name,), "type": "", "msg": "must be a list with something in it"}])
    if len(listed) > most:
        advice = f"upload JSON lines (application/jsonl) for up to {most_uploaded}, or send several batches"
        raise _too_many(most, "HERDER_BATCH_ITEMS_MAX", advice, got=len(listed))
    return [{"prompt": text} for text in listed] if items is None else listed


def _too_many(most: int, setting: str, advice: str, got: int | None = None) -> InvalidRequest:
    count = "more" if got is None else str(got)
    message = f"{count} prompts are more than {most} ({setting}): {advice}"
    return InvalidRequest(message, limit=most, errors=[{"field": "items", "message": message}])


def _options(value: dict[str, Any], settings: Settings) -> BatchOptions:
    for name in ("prompt", "messages"):
        if name in value:
            raise invalid([{"loc": (name,), "type": "", "msg": "belongs into `prompts` or `items`"}])
    options = validated(BatchOptions, value, settings)
    checked_against(settings, options, options.tokens or 1)
    if options.multiplier is not None and options.multiplier > settings.multiplier_max * MILLI:
        raise invalid([{"loc": ("multiplier",), "type": "", "msg": _at_most(settings)}])
    return options


def _at_most(settings: Settings) -> str:
    return f"must be at most {settings.multiplier_max:g}"


def _emptied(rows: list[Any]) -> Iterator[Any]:
    """The rows in order, each let go of as it is taken."""
    for index, row in enumerate(rows):
        rows[index] = None
        yield row


def _lines(body: bytearray) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, with their names; none of them is kept."""
    start, number = 0, 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        number += 1
        line = bytes(body[start:end]).strip()
        start = end + 1
        if line:
            yield f"line {number}", line


async def _batch(
    options: BatchOptions,
    common: dict[str, Any],
    rows: Iterator[tuple[str, Any]],
    settings: Settings,
    *,
    digest: bool,
) -> BatchAsk:
    """Check every item, some between two turns of the event loop. Raises InvalidRequest where none is right, or so many
    are wrong that there is no use in looking further."""
    reader = _Reader(options, common, settings)
    meaning = hashlib.sha256(b"batch") if digest else None
    if meaning is not None:
        meaning.update(
            _meaning(options.model_dump(mode="json", exclude_defaults=True, exclude=set(INHERITED)))
        )
    drafts: list[Draft] = []
    for count, (where, row) in enumerate(rows, 1):
        body = reader.item(where, row)
        if reader.faults.many:
            break
        if body is not None:
            drafts.append(Draft(where, body))
            if meaning is not None:
                meaning.update(_meaning(body.model_dump(mode="json", exclude_defaults=True)))
        if count % SLICE == 0:
            await asyncio.sleep(0)
    if not drafts or reader.faults.many:
        reader.faults.refuse()
        raise InvalidRequest("a batch has at least one prompt", errors=[])
    return BatchAsk(options, drafts, meaning.hexdigest() if meaning else "", reader.faults)


def _meaning(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True).encode() + b"\n"


class _Reader:
    """Puts the options into each item and checks it as a job's body would be."""

    def __init__(self, options: BatchOptions, common: dict[str, Any], settings: Settings) -> None:
        self.faults = Faults()
        self._options = options
        inherited = {name: common[name] for name in INHERITED if common.get(name) is not None}
        self._common = Inherited(inherited, settings.batch_bytes_max)
        self._settings = settings
        self._highest_milli = round(settings.multiplier_max * MILLI)
        self._seen: dict[str, str] = {}

    def item(self, where: str, row: Any) -> BatchItem | None:
        """The item, or None with its faults noted."""
        try:
            given = object_in(row, "the line") if isinstance(row, bytes) else row
            if not isinstance(given, dict):
                self.faults.add(where, "", "must be an object")
                return None
            body = BatchItem.model_validate(self._merged(where, given), context=self._settings)
            checked_against(self._settings, body, body.tokens)
        except ValidationError as error:
            self.faults.take(
                where, invalid(error.errors(include_url=False, include_context=False, include_input=False))
            )
            return None
        except InvalidRequest as error:
            self.faults.take(where, error)
            return None
        except HerderError as error:
            self.faults.add(where, "", error.detail)
            return None
        self._check(where, body, given)
        return body

    def _merged(self, where: str, given: dict[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in given.items() if value is not None}
        for name in BATCH_ONLY:
            if name in given:
                raise invalid(
                    [{"loc": (name,), "type": "", "msg": "is for the whole batch, not for an item"}]
                )
        return self._common.merged(own)

    def _check(self, where: str, body: BatchItem, given: dict[str, Any]) -> None:
        """What takes more than one look at the item alone."""
        if body.multiplier is not None and body.multiplier > self._highest_milli:
            self.faults.add(where, "multiplier", _at_most(self._settings))
        if self._options.fee is not None and given.get("multiplier") is not None:
            self.faults.add(where, "multiplier", "fee and multiplier exclude each other")
        if body.custom_id is not None:
            first = self._seen.setdefault(body.custom_id, where)
            if first != where:
                self.faults.add(where, "custom_id", f"is the same as in {first}")
