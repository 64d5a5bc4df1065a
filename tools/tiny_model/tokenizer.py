"""A byte-level BPE tokenizer in the style of GPT-2, trained on the fixed texts only.

No learned merge contains a digit or joins a space with a capital letter; two digits always
make one token. A name or a number is therefore cut into the same pieces wherever it stands,
which makes copying easy.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import (  # type: ignore[import-not-found, unused-ignore]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)

from . import dialogues, sentiment, skills
from .chat_template import ASSISTANT, BOS, END, SPECIAL_TOKENS, SYSTEM, USER
from .dialogues import Chat
from .questions import ENTRIES, YES_NO

VOCAB_SIZE = 1024
DIGIT_PAIRS = [(a, b) for a in "0123456789" for b in "0123456789"]
GIVEN_JSON = 0.3  # the weight of keys and colons that a grammar gives


@dataclass(frozen=True)
class Encoded:
    """Token ids and, for each, how much the training loss counts it as a target."""

    ids: list[int]
    weights: list[float]


class ChatTokenizer:
    """Text to ids, with the special tokens of the chat template in front of the vocabulary."""

    def __init__(self, merges: list[tuple[str, str]]) -> None:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        self.merges = merges
        self.tokens = [*SPECIAL_TOKENS, *alphabet, *("".join(pair) for pair in merges)]
        self.special = {token: i for i, token in enumerate(SPECIAL_TOKENS)}
        vocab = {token: i for i, token in enumerate(self.tokens)}
        self._bpe = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        self._bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        self._bpe.decoder = decoders.ByteLevel()

    def encode(self, text: str) -> list[int]:
        """The ids of plain text."""
        ids: list[int] = self._bpe.encode(text).ids
        return ids

    def encode_chat(self, chat: Chat) -> Encoded:
        """A whole chat as the template writes it; only answers count in the loss."""
        out = Encoded([self.special[BOS]], [0.0])

        def add(ids: list[int], weight: float) -> None:
            out.ids.extend(ids)
            out.weights.extend([weight] * len(ids))

        end = self.special[END]
        if chat.raw:
            add([*self.encode(chat.raw), end], 1.0)
        if chat.system:
            add([self.special[SYSTEM], *self.encode(chat.system), end], 0.0)
        for turn in chat.turns:
            add([self.special[USER], *self.encode(turn.user), end, self.special[ASSISTANT]], 0.0)
            start = self.encode(turn.answer[: turn.given])
            json_start = turn.answer[:1] in '{"' and turn.given > 0
            add(start[:1], skills.FAINT if json_start else 0.0)
            add(start[1:], GIVEN_JSON if json_start else 0.0)
            rest = [*self.encode(turn.answer[turn.given :]), end]
            add(rest, turn.weight if turn.given < len(turn.answer) else 0.0)
            if turn.end_weight is not None:
                out.weights[-2:] = [turn.end_weight] * 2
        return out


def _corpus() -> Iterator[str]:
    """Everything that is written by hand, but no names; each text once or a few times."""
    for ways, answer in ENTRIES:
        yield from ways
        yield from (answer, answer)
    yield from (asked for asked, _ in YES_NO)
    yield from (skills.UNKNOWN_ANSWER, dialogues.FORGOTTEN, "Nice to meet you, ", "Your name is ")
    yield from (*dialogues.NAME_FORMS, *dialogues.NAME_QUESTIONS, *dialogues.SYSTEM_PROMPTS, *skills.WORDS)
    yield from (*sentiment.INSTRUCTIONS, *sentiment.SYSTEM_INSTRUCTIONS)
    yield from sentiment.LABELS * 20
    rng = random.Random(0)
    for _ in range(1500):
        yield sentiment.plain_sentence(rng).text
        yield skills.person_json(rng).user.replace(" is", "").split(" years")[-1]
    yield from (json.dumps({"sentiment": "", "label": "", "name": "", "age": 0, "city": ""}),) * 20


def _pieces() -> Iterator[str]:
    """The corpus without digits, cut so that no merge can join a space with a capital letter."""
    for text in _corpus():
        for piece in re.findall(r" ?[a-z]+| ?[A-Z][a-z]*| ?[^\sA-Za-z\d{}\[\]]+| ?[{}\"]+", text):
            yield piece.strip() if piece.strip()[:1].isupper() else piece


def train_tokenizer() -> ChatTokenizer:
    """Learn the merges."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS) - len(DIGIT_PAIRS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(_pieces(), trainer)
    merges = [(str(a), str(b)) for a, b in json.loads(bpe.to_str())["model"]["merges"]]
    return ChatTokenizer(DIGIT_PAIRS + merges)
