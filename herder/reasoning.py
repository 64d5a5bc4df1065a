"""What a model thinks aloud, kept apart from what it answers, where its chat template marks the one from the other.

Pure. The text is stored as the model wrote it and parted when it is read, whole or piece by piece with the same
outcome however it was cut. Only reasoning that comes first is parted; the marks themselves are in neither part.
"""

from __future__ import annotations

from typing import NamedTuple

# The marks by the name under which a job remembers them. A template that ends the reasoning of an earlier turn, or
# begins that of the next, contains the second one.
MARKS: dict[str, tuple[str, str]] = {
    "think": ("<think>", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "thought": ("<thought>", "</thought>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "minimax": ("<mm:think>", "</mm:think>"),
    "seed": ("<seed:think>", "</seed:think>"),
    "bracket": ("[THINK]", "[/THINK]"),
    "command": ("<|START_THINKING|>", "<|END_THINKING|>"),
}
MARKS_BYTES = frozenset(mark.encode() for pair in MARKS.values() for mark in pair)
OPEN = "+"  # behind the name: the prompt has begun the reasoning already
SPACE_CHARS_MAX = 8  # white space before the first mark


def marks_of(template: str, prompt: str) -> str | None:
    """How answers to this rendered prompt are to be parted; None where the template knows no reasoning."""
    end = prompt.rstrip()
    for name, (first, last) in MARKS.items():
        if end.endswith(first) and (first in template or last in template):
            return name + OPEN
    return next((name for name, (_, last) in MARKS.items() if last in template), None)


class Parts(NamedTuple):
    """A piece of an answer: what of it is reasoning, and what the answer proper; in this order."""

    reasoning: str
    text: str


class Parting:
    """Parts an answer that comes in pieces. What may be the beginning of a mark is held back until it is decided."""

    def __init__(self, marks: str | None) -> None:
        name = (marks or "").removesuffix(OPEN)
        self._first, self._last = MARKS.get(name, ("", ""))
        self._held = ""
        self._thinking = self._first != "" and marks != name
        self._begun = self._thinking or not self._first

    def feed(self, piece: str) -> Parts:
        """What can be told now."""
        self._held += piece
        if not self._begun and not self._begins():
            return Parts("", "")
        reasoning = self._reasoning() if self._thinking else ""
        text = "" if self._thinking else self._all()
        return Parts(reasoning, text)

    def end(self) -> Parts:
        """What was held back: the answer ends here."""
        held = self._all()
        return Parts(held, "") if self._thinking else Parts("", held)

    def _begins(self) -> bool:
        """Whether it is decided how the answer begins."""
        start = self._held.lstrip()
        if len(self._held) - len(start) <= SPACE_CHARS_MAX:
            if start.startswith(self._first):
                self._held, self._thinking = start[len(self._first) :], True
            elif self._first.startswith(start):
                return False
        self._begun = True
        return True

    def _reasoning(self) -> str:
        """Up to the last mark, or to what may become one."""
        reasoning, mark, rest = self._held.partition(self._last)
        if mark:
            self._held, self._thinking = rest, False
            return reasoning
        most = min(len(self._last) - 1, len(self._held))
        keep = next(n for n in range(most, -1, -1) if self._held.endswith(self._last[:n]))
        told = len(self._held) - keep
        reasoning, self._held = self._held[:told], self._held[told:]
        return reasoning

    def _all(self) -> str:
        held, self._held = self._held, ""
        return held


def parted(marks: str | None, answer: str) -> Parts:
    """A whole answer."""
    parting = Parting(marks)
    told, rest = parting.feed(answer), parting.end()
    return Parts(told.reasoning + rest.reasoning, told.text + rest.text)
