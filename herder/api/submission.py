"""From a validated body to a priced, rendered `Ask`: the model, the text, whether it fits, and the price.

Holds nothing and queues nothing; `jobs` submits what is made here, `quote` only shows it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace

from herder.api.bodies import Offer
from herder.api.chats import chat_of
from herder.api.offers import Sale, Wish, sale
from herder.api.state import Herd
from herder.apikeys import ALPHABET
from herder.brief import Brief
from herder.chains import chain_for
from herder.errors import ContextExceeded, InvalidRequest, NoWorker, UnknownModel
from herder.pricing import MILLI, Prices
from herder.prompts import Chat, bounds, kv_estimate, without_doubled_bos
from herder.protocol import Ask, ModelCard, Webhook
from herder.reasoning import marks_of
from herder.records import KeyRecord, ModelState
from herder.settings import model_name

JOB_ID_CHARS = 22  # 131 bits
# Each character stands for four of these bytes; those for which it does not come out even are left out.
_BYTES_TOO_HIGH = bytes(range(4 * len(ALPHABET), 256))
_CHAR_OF_BYTE = (5 * ALPHABET).encode()[:256]


@dataclass(frozen=True)
class Prompt:
    """A rendered text that fits its model, and the KV cells it will probably occupy.

    `marks` is how reasoning is told from the rest of the answer, as `reasoning` writes it; None where it is not.
    `schema` is what the answer must fit, as the worker reads it.
    """

    text: str
    kv_tokens: int
    marks: str | None = None
    schema: str | None = None


async def model_of(herd: Herd, name: str | None) -> ModelState:
    """The model that was named, or the default one. Raises UnknownModel."""
    state = await herd.market.state(name) if name is not None else None
    if state is not None:
        return state
    models = await herd.market.models()
    if name is None:
        name = (
            models[0]
            if len(models) == 1
            else model_name(herd.settings.model[0] if herd.settings.model else "")
        )
        state = await herd.market.state(name)
        if state is not None:
            return state
    known = f"there are: {', '.join(models)[:500]}" if models else "no worker has registered a model yet"
    raise UnknownModel(f"no model {name} in this herd; {known}", models=models[:100])


async def prompt_of(herd: Herd, card: ModelCard, body: Offer, tokens: int) -> Prompt:
    """The text the model will read. Raises InvalidRequest (the template refused, or no answer can have the form),
    ContextExceeded."""
    schema = await schema_of(herd, card, body, tokens)
    chat = chat_of(body, card)
    if chat is None:
        text = without_doubled_bos(body.prompt or "", card)
    else:
        text = await herd.renderer.text(card, chat)
    return replace(await fitted(herd, card, chat, text, tokens, n=body.n), schema=schema)


async def schema_of(herd: Herd, card: ModelCard, body: Offer, tokens: int) -> str | None:
    """The schema that answers of this body must fit, tried; None for any text. Raises InvalidRequest, Overloaded."""
    form = body.form()
    return None if form is None else await herd.schemas.text(form, card, tokens, herd.counter)


async def fitted(
    herd: Herd, card: ModelCard, chat: Chat | None, text: str, tokens: int, *, n: int = 1
) -> Prompt:
    """A rendered text (of this chat, if it was one) as a prompt that fits, with `n` answers of so many tokens each.

    Raises InvalidRequest (it is empty), ContextExceeded.
    """
    if not text:
        raise InvalidRequest("the rendered prompt is empty", errors=[])
    length = len(text.encode())
    counted = await _fitting(herd, card, text, length, tokens)
    # The answers share the prompt's cells.
    kv_tokens = kv_estimate(length, counted, tokens, card.context) + (n - 1) * tokens
    template = chat.template_of(card) if chat is not None else None
    return Prompt(text, kv_tokens, marks_of(template, text) if template is not None else None)


async def _fitting(herd: Herd, card: ModelCard, text: str, length: int, tokens: int) -> int | None:
    """The exact count where one was needed. Raises ContextExceeded for what can never fit."""
    sure = bounds(length, card)
    # 1. Too long however few tokens it turns out to be.
    if sure.least + tokens > card.context:
        raise _too_long(card, tokens, sure.least, "at least ")
    # 2. Short enough however many.
    if sure.most + tokens <= card.context:
        return None
    # 3. In between: count. Where nobody here can, the worker does, and refuses with a full refund.
    counted = await herd.counter.count(card.model, text)
    if counted is not None and counted + tokens > card.context:
        raise _too_long(card, tokens, counted, "")
    return counted


def _too_long(card: ModelCard, tokens: int, prompt_tokens: int, about: str) -> ContextExceeded:
    return ContextExceeded(
        f"the prompt ({about}{prompt_tokens} tokens) and {tokens} tokens of answer do not fit the context of "
        f"{card.model}, {card.context} tokens",
        limit=card.context,
        context=card.context,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
    )


def refuse_without_worker(herd: Herd, state: ModelState) -> None:
    """Raises NoWorker where the settings want that."""
    if herd.settings.refuse_without_worker and not state.workers:
        raise NoWorker(f"no live worker has {state.card.model} just now", retry_after=10)


def warning_of(state: ModelState | None, n: int) -> str | None:
    """What a caller should know of a model whose line nobody is working on, or nobody who can make `n` answers."""
    if state is None or (state.workers and (n == 1 or n <= state.slots_most)):
        return None
    if not state.workers:
        return f"no live worker has {state.card.model} just now; the job waits until one comes"
    return (
        f"no live worker of {state.card.model} makes {n} answers at once just now; the job waits until one comes. "
        f"With an n of {state.slots_most} or less it would not"
    )


def sale_of(herd: Herd, prices: Prices, state: ModelState, body: Offer, tokens: int) -> Sale:
    """What this body is sold at, so many tokens an answer. Raises FeeTooLow, MaxFeeExceeded, InvalidRequest."""
    wish = Wish(body.multiplier, body.fee, body.max_fee)
    highest_milli = round(herd.settings.multiplier_max * MILLI)
    # An automatic price follows the last accepted bid, but only so far: one reckless bid is not everybody's price.
    ceiling_milli = round(herd.settings.automatic_multiplier_max * MILLI)
    return sale(prices, tokens * body.n, wish, min(state.last_multiplier_milli, ceiling_milli), highest_milli)


def ask_of(
    key: KeyRecord,
    state: ModelState,
    body: Offer,
    *,
    prompt: Prompt,
    sold: Sale,
    prices: Prices,
    tokens: int,
    chain_key: bytes,
    webhook: Webhook | None = None,
    idempotency_key: str | None = None,
    digest: str = "",
    presence_ms: int = 0,
) -> Ask:
    """The job, with an id; `digest` is the meaning of what was sent, for the Idempotency-Key."""
    brief = brief_for(body, prompt.text, prompt.schema)
    return Ask(
        job_id=new_job_id(),
        account=key.account,
        key_id=key.key_id,
        model=state.card.model,
        brief=brief,
        tokens=tokens,
        terms=sold.terms,
        multiplier_milli=sold.multiplier_milli,
        offered=sold.offered,
        price_version=prices.version,
        kv_tokens=prompt.kv_tokens,
        chain=chain_for(brief, chain_key, key.account),
        metadata=body.metadata,
        # An answer in a form has no room for reasoning.
        marks=prompt.marks if brief.schema is None else None,
        idempotency_key=idempotency_key,
        request_hash=digest,
        webhook=webhook,
        presence_ms=presence_ms,
        run=body.module_run,
        ao=body.ao_reference,
    )


def brief_for(body: Offer, text: str, schema: str | None) -> Brief:
    """What the worker reads, with (where none was given) a seed of its own."""
    sampling = body.sampling()
    return Brief(
        text,
        body.stops,
        sampling,
        n=body.n,
        schema=schema,
        share_prefix=body.share_prefix,
        cache_prompt=body.cache_prompt is not False,
        repeatable=body.seed is not None if body.cache_prompt is None else not body.cache_prompt,
    )


def new_job_id() -> str:
    """`job_` and 22 random base62 characters."""
    drawn = b""
    while len(drawn) < JOB_ID_CHARS:  # mostly once: of 32 bytes one is left out
        drawn = os.urandom(32).translate(_CHAR_OF_BYTE, _BYTES_TOO_HIGH)
    return "job_" + drawn[:JOB_ID_CHARS].decode()


def request_hash(body: Offer) -> str:
    """What an Idempotency-Key is bound to: the meaning of the body, not its spaces or the order of its fields.

    Defaults are left out, so that a newer herder with more fields still recognises an older one's requests.
    """
    meaning = json.dumps(body.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(meaning.encode()).hexdigest()
