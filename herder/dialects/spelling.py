"""Which part of an answer's text each of its tokens brings. Pure.

A token's own text is U+FFFD where it is a part of a character, and one that reaches into a stop string is only shown up
to it; so the parts are found again in the text. Whatever the tokens are, the parts follow one another. Where characters
are cut into tokens, and look like what comes next, they may end before the text does.
"""

from __future__ import annotations

from collections.abc import Sequence

from herder.choices import TokenChances

BROKEN = "\ufffd"

Span = tuple[int, int]


def spelled(text: str, tokens: Sequence[TokenChances]) -> list[Span]:
    """From where to where in the text each token goes, one after the other without a hole; of a token that brings
    nothing of its own both are the same. What follows the last token's own text is left."""
    spans: list[Span] = []
    at, unsure = 0, 0  # the last so many tokens are somewhere behind `at`
    for token in tokens:
        own = token["text"]
        whole = bool(own) and BROKEN not in own
        if own and not unsure and text.startswith(own, at):  # U+FFFD may be what the model has written
            found = at
        else:
            found = text.find(own, at + 1) if whole and unsure else -1
        if found < 0 and whole and not unsure and own.startswith(text[at:]):
            found, own = at, text[at:]  # it is cut off here
        if found >= 0:
            _settle(spans, unsure, found)
            spans.append((found, found + len(own)))
            at, unsure = found + len(own), 0
        else:
            spans.append((at, at))
            unsure += bool(own)
    if unsure:
        _settle(spans, unsure, len(text))
    return spans


def _settle(spans: list[Span], unsure: int, end: int) -> None:
    """What lies before `end` belongs to the last of the unsure ones: with it a character became whole."""
    if unsure:
        spans[-1] = (spans[-1][0], end)
