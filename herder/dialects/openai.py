"""OpenAI's API: `/v1/completions` and `/v1/chat/completions`, each answer a job like any other.

What is sent is read in `openai_bodies`, what is told is written in `openai_answers`; several prompts of one request
are bought as one batch (`openai_many`). `/v1/models` is in `herder.api.info`, since it is ours as well.
"""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import APIRouter, Request, Response

from herder.api.callers import BatchCaller, Caller
from herder.api.options import no_token
from herder.api.reading import parsed
from herder.api.refusals import PLAIN
from herder.api.state import Herd, herd_of
from herder.api.submission import model_of
from herder.dialects import lamini
from herder.dialects.asking import asked, model_named
from herder.dialects.attended import answered, bought, told
from herder.dialects.lamini_bodies import is_lamini
from herder.dialects.many import body_of_many, bought_many
from herder.dialects.openai_answers import (
    ChatChunks,
    CompletionChunks,
    Manner,
    as_json,
    chat_answer,
    completion_answer,
)
from herder.dialects.openai_bodies import (
    CHAT_NAMES,
    COMPLETION_NAMES,
    NAMES_OF_MANY,
    ChatBody,
    CompletionBody,
    chat_fields,
    completion_fields,
    prompts_of,
)
from herder.dialects.openai_many import told_each, told_whole
from herder.dialects.openai_tools import told_of_tools, wrong
from herder.errors import InvalidRequest, TooLarge
from herder.records import KeyRecord

router = APIRouter(include_in_schema=False)


@router.post("/v1/chat/completions")
async def chat(request: Request, key: Caller) -> Response:
    """The answer to a chat, whole or as it comes."""
    return await chatted(request, key, await asked(request, ChatBody))


async def chatted(
    request: Request, key: KeyRecord, body: ChatBody, chunks: type[ChatChunks] = ChatChunks
) -> Response:
    """The answer to a chat; a stream in the words of `chunks`. Raises what a submission can be refused with."""
    herd = herd_of(request)
    state = await model_of(herd, await model_named(herd, body.model))
    fields, box = chat_fields(body, state.card.template)
    manner = Manner(body.tier, box.names, usage=body.usage_at_end)
    names = dict(CHAT_NAMES)
    if body.max_completion_tokens is not None:
        names["tokens"] = "max_completion_tokens"
    try:
        if body.stream:
            with herd.streams.reserved():
                sold = await bought(request, key, body, fields, names)
                return told(request, sold, chunks(sold.record, manner))
        sold = await answered(request, await bought(request, key, body, fields, names))
    except InvalidRequest as error:
        raise told_of_tools(error) if box.forced else error from None
    return Response(as_json(chat_answer(sold.record, manner)), 200, sold.headers, PLAIN)


@router.post("/v1/completions")
async def completions(request: Request, key: BatchCaller) -> Response:
    """Prompts written on, whole or as it comes. Lamini's clients call here too, with bodies of their own."""
    herd = herd_of(request)
    raw = await body_of_many(request, key.account)
    if b'"model_name"' in raw and await asyncio.to_thread(is_lamini, raw):
        return await lamini.completion(request, key, raw)
    limit = herd.settings.body_bytes_max
    if len(raw) > limit:
        raise TooLarge(f"the body is larger than HERDER_BODY_BYTES_MAX, {limit} bytes", limit=limit)
    return await completed(request, key, parsed(CompletionBody, raw, herd.settings))


async def completed(request: Request, key: KeyRecord, body: CompletionBody) -> Response:
    """Prompts written on. Raises what a submission can be refused with."""
    herd = herd_of(request)
    fields, given = completion_fields(body), prompts_of(body.prompt)
    prompts = await _texts(herd, body.model, given)
    manners = [Manner(body.tier, echo=each if body.echo else "", usage=body.usage_at_end) for each in prompts]
    if len(prompts) > 1:
        with herd.streams.reserved() if body.stream else contextlib.nullcontext():
            many = await bought_many(request, key, body, fields, prompts, names=NAMES_OF_MANY)
            if body.stream:
                return told_each(request, many, manners)
        return await told_whole(request, many, manners)
    fields["prompt"] = prompts[0]
    if body.stream:
        with herd.streams.reserved():
            sold = await bought(request, key, body, fields, COMPLETION_NAMES)
            return told(request, sold, CompletionChunks(sold.record, manners[0]))
    sold = await answered(request, await bought(request, key, body, fields, COMPLETION_NAMES))
    return Response(as_json(completion_answer([sold.record], manners)), 200, sold.headers, PLAIN)


async def _texts(herd: Herd, model: str | None, prompts: list[str | list[int]]) -> list[str]:
    """The prompts as texts: a list of tokens is taken where a worker would read exactly these of a text."""
    texts: list[str] = []
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            texts.append(prompt)
            continue
        card = (await model_of(herd, await model_named(herd, model))).card
        at = "prompt" if len(prompts) == 1 else f"prompt.{i}"
        for j, token in enumerate(prompt):
            if not 0 <= token < card.vocab_size:
                raise wrong(f"{at}.{j}", no_token(token, card.vocab_size))
        spelled = await herd.counter.spell(card.model, prompt)
        if spelled is None:
            raise wrong(
                at,
                f"a list of tokens cannot be read just now, send text: {card.model} has sent no vocabulary",
            )
        if not spelled:
            raise wrong(
                at, f"there is no text that {card.model} reads as just these tokens; send the text itself"
            )
        texts.append(spelled)
    return texts
