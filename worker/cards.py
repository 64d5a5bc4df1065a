"""The model card that a worker publishes, with the chat template that is to be, and the vocabulary that goes with it.

Must not know of Redis or llama_cpp: facts come from the engine, the vocabulary from the GGUF's header.
"""

from __future__ import annotations

from pathlib import Path

from herder import templates
from herder.errors import InvalidRequest, Overloaded, SetupError
from herder.prompts import TEMPLATE_CHARS_MAX, Chat, Renderer
from herder.protocol import ModelCard
from worker.engine import EngineFacts
from worker.gguf import Header, without_tensors

VOCAB_BYTES_MAX = 32 * 1024 * 1024
"""A larger vocabulary is not published; the worker then counts alone and refuses with a full refund."""


def template_for(model: str, choices: tuple[str, ...]) -> str | None:
    """The text of the template that was chosen for a model, by `model=choice` or for all; None for the file's own.

    A choice is the name of one of ours, or a file. Raises ValueError, whose message says what to do.
    """
    chosen = ""
    for choice in choices:
        of, given, what = choice.partition("=")
        if not given:
            chosen = chosen or choice
        elif of == model:
            chosen = what
            break
    if not chosen:
        return None
    for ours in templates.NAMES:
        if chosen == ours:
            return templates.text_of(ours)
    try:
        with Path(chosen).expanduser().open(encoding="utf-8") as file:
            text = file.read(TEMPLATE_CHARS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(templates.NAMES)
        raise ValueError(
            f"template {chosen!r} cannot be read ({error}); name a Jinja file, or {known}"
        ) from error
    if not text.strip() or len(text) > TEMPLATE_CHARS_MAX:
        raise ValueError(f"template {chosen!r} is empty, or larger than {TEMPLATE_CHARS_MAX} characters")
    return text


async def check_template(card: ModelCard) -> None:
    """Raises SetupError where the card's template cannot render a chat of one turn."""
    renderer = Renderer()
    try:
        await renderer.text(card, Chat([{"role": "user", "content": "Hello"}]))
    except (InvalidRequest, Overloaded) as error:
        raise SetupError(f"the chat template given for {error}; mend it, or leave --template out") from error
    finally:
        await renderer.close()


def model_card(name: str, facts: EngineFacts, template: str | None = None) -> ModelCard:
    """What this worker tells the herd of its model; `template` goes before the model file's own."""
    return ModelCard(
        model=name,
        context=min(facts.context, facts.kv_tokens),
        vocab_size=facts.vocab_size,
        max_piece_bytes=facts.max_piece_bytes,
        template=facts.template if template is None else template,
        bos_token=facts.bos_token,
        eos_token=facts.eos_token,
        adds_bos=facts.adds_bos,
        # llama.cpp's words for a size that it has no name for.
        description=facts.description.replace(" ?B", ""),
    )


def vocabulary(header: Header) -> bytes | None:
    """The GGUF without tensors, or None where it would be too large to publish."""
    vocab = without_tensors(header)
    return vocab if len(vocab) <= VOCAB_BYTES_MAX else None
