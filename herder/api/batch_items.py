"""From checked items to items that fit: each with the text that its model reads, rendered many at a time.

Holds nothing, prices nothing. A fault names its item as `batch_reading` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from herder.api.batch_bodies import BatchItem
from herder.api.batch_reading import SLICE, BatchAsk, Draft
from herder.api.chats import chat_of
from herder.api.faults import Faults
from herder.api.offers import Sale
from herder.api.options import check_tokens
from herder.api.state import Herd
from herder.api.submission import Prompt, brief_for, fitted, model_of, refuse_without_worker, schema_of
from herder.batches import Item
from herder.brief import Brief
from herder.errors import ContextExceeded, InvalidRequest, UnknownModel
from herder.pricing import head_start_ms
from herder.prompts import Chat, without_doubled_bos
from herder.protocol import ModelCard, Webhook
from herder.records import ModelState

FIT_TRIES = 3  # to find how much room a prompt leaves for an answer
_NO_METADATA: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class _Rendered:
    """One item with its text, and the chat that it was made of; or what the template said against it."""

    draft: Draft
    chat: Chat | None
    text: str | InvalidRequest


@dataclass(frozen=True, slots=True)
class Fitted:
    """One item, rendered and found to fit; what is not yet known of it is its price."""

    model: str
    brief: Brief
    kv_tokens: int
    tokens: int
    multiplier_milli: int | None
    custom_id: str | None
    metadata: dict[str, str]
    marks: str | None = None
    manner: str | None = None

    def priced(
        self, sold: Sale, fee: int, doubling_ms: int, webhook: Webhook | None, chain: tuple[str, ...]
    ) -> Item:
        """The item as it is stored: `fee` credits of the batch's are its own."""
        return Item(
            model=self.model,
            tokens=self.tokens,
            base=sold.terms.base,
            fee=fee,
            multiplier_milli=sold.multiplier_milli,
            offered=sold.offered,
            head_start_ms=head_start_ms(sold.multiplier_milli, doubling_ms),
            kv_tokens=self.kv_tokens,
            input=self.brief.as_json(),
            custom_id=self.custom_id,
            metadata=self.metadata,
            webhook=webhook,
            n=self.brief.n,
            chain=chain,
            marks=self.marks,
            typed=self.brief.schema is not None,
            manner=self.manner,
        )


async def fitted_items(herd: Herd, ask: BatchAsk) -> tuple[list[Fitted], dict[str, ModelState]]:
    """Every item with its text, and the models by name. Empties `ask.drafts`.

    Raises InvalidRequest naming each item that cannot be, UnknownModel, NoWorker, Overloaded.
    """
    faults = ask.faults
    states = await _models(herd, ask.drafts, faults)
    if faults.many:
        faults.refuse()
    ready: list[Fitted] = []
    drafts = ask.drafts
    if faults.found:  # of what is left, the rest of the faults is still told
        drafts[:] = [draft for draft in drafts if draft.body.model in states]
    for first in range(0, len(drafts), SLICE):
        some = drafts[first : first + SLICE]
        drafts[first : first + SLICE] = [some[0]] * len(some)  # rendered, an item is not kept as it came
        async for rendered in _texts(herd, states, some):
            item = await _fitted(herd, states[rendered.draft.body.model], rendered, faults, fit=ask.fit)
            if item is not None:
                manner = ask.manners.get(item.custom_id or "")
                ready.append(item if manner is None else replace(item, manner=manner))
        if faults.many:
            break
        await asyncio.sleep(0)
    drafts.clear()
    faults.refuse()
    return ready, {state.card.model: state for state in states.values()}


async def _models(herd: Herd, drafts: list[Draft], faults: Faults) -> dict[str | None, ModelState]:
    """The models that are named, looked up once each; None is the herd's default."""
    states: dict[str | None, ModelState] = {}
    for draft in drafts:
        name = draft.body.model
        if name in states:
            continue
        try:
            states[name] = await model_of(herd, name)
        except UnknownModel as error:
            if not states and not faults.found:  # most likely the model of all
                raise
            faults.add(draft.where, "model", error.detail)
            if faults.many:
                break
            continue
        refuse_without_worker(herd, states[name])
    return states


async def _texts(
    herd: Herd, states: dict[str | None, ModelState], drafts: list[Draft]
) -> AsyncIterator[_Rendered]:
    """The items in order with their chats and texts; neighbours with the same template are rendered together."""
    at = 0
    while at < len(drafts):
        body = drafts[at].body
        state = states[body.model]
        chats: list[Chat] = []
        for draft in drafts[at:]:
            if states[draft.body.model] is not state or draft.body.template != body.template:
                break
            chat = chat_of(draft.body, state.card)
            if chat is None:
                break
            chats.append(chat)
        if not chats:
            yield _Rendered(drafts[at], None, without_doubled_bos(body.prompt or "", state.card))
            at += 1
            continue
        each = iter(chats)
        async for text in herd.renderer.texts(state.card, chats):
            yield _Rendered(drafts[at], next(each), text)
            at += 1


async def _fitted(
    herd: Herd, state: ModelState, rendered: _Rendered, faults: Faults, *, fit: bool
) -> Fitted | None:
    draft, text = rendered.draft, rendered.text
    body = draft.body
    if isinstance(text, InvalidRequest):
        faults.add(draft.where, "", text.detail)
        return None
    try:
        check_tokens(body, state.card.vocab_size)
        prompt, tokens = await _prompt(herd, state.card, rendered.chat, text, body, fit=fit)
        schema = await schema_of(herd, state.card, body, tokens)
    except (ContextExceeded, InvalidRequest) as error:
        faults.take(draft.where, error)
        return None
    brief = brief_for(body, prompt.text, schema)
    return Fitted(
        model=state.card.model,
        brief=brief,
        kv_tokens=prompt.kv_tokens,
        tokens=tokens,
        multiplier_milli=body.multiplier,
        custom_id=body.custom_id,
        metadata=body.metadata or _NO_METADATA,
        marks=prompt.marks if brief.schema is None else None,
    )


async def _prompt(
    herd: Herd, card: ModelCard, chat: Chat | None, text: str, body: BatchItem, *, fit: bool
) -> tuple[Prompt, int]:
    """The prompt of an item, and the tokens of its answer; with `fit` fewer than it asks for where that is all there
    is room for. Raises ContextExceeded, InvalidRequest."""
    tokens = body.tokens
    for _ in range(FIT_TRIES):
        try:
            return await fitted(herd, card, chat, text, tokens, n=body.n), tokens
        except ContextExceeded as error:
            tokens = error.extra["context"] - error.extra["prompt_tokens"]
            if not fit or tokens < 1:
                raise
    raise ContextExceeded("the prompt leaves no room for an answer; make it shorter", limit=card.context)
