"""The answers of one job, of which there may be several, and how likely their tokens were; compact JSON for Redis.

Pure. The first answer's text is not in it: it stands beside, as the job's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict


class Chance(TypedDict):
    """A token, its own text, and its natural log-probability."""

    token: int
    text: str
    logprob: float


class TokenChances(Chance):
    """A token that was drawn, and the likeliest ones of its place, most likely first."""

    top: list[Chance]


@dataclass(frozen=True)
class Choice:
    """One answer."""

    text: str
    finish_reason: str
    completion_tokens: int


def choices_text(choices: Sequence[Choice]) -> str | None:
    """What is stored of several answers beside the first one's text; None for one."""
    if len(choices) == 1:
        return None
    return _compact(
        [
            [choice.text if i else "", choice.finish_reason, choice.completion_tokens]
            for i, choice in enumerate(choices)
        ]
    )


def choices_of(stored: str, text: str) -> tuple[Choice, ...]:
    """The answers, from what is stored and the first one's text."""
    first, *others = (Choice(*row) for row in json.loads(stored))
    return (Choice(text, first.finish_reason, first.completion_tokens), *others)


def logprobs_text(answers: Sequence[Sequence[TokenChances]]) -> str:
    """What is stored of the chances of each answer's tokens."""
    return _compact(answers)


def told_text(chances: Sequence[TokenChances]) -> str:
    """What is said of tokens while their answer comes: ASCII, so that it is one line for every reader."""
    return json.dumps(chances, separators=(",", ":"))


def told_of(said: str) -> list[TokenChances]:
    """The chances of the tokens of one event."""
    found: list[TokenChances] = json.loads(said)
    return found


def logprobs_of(stored: str) -> list[list[TokenChances]]:
    """The chances of each answer's tokens."""
    found: list[list[TokenChances]] = json.loads(stored)
    return found


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
