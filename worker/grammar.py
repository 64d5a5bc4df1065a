"""Answers that fit a schema: which tokens may come next, and which must, so that none is ever cut off.

llguidance says what is allowed; `closing` says how an answer can be ended. As soon as what is left of the token budget
could be too little for that, a token is taken only if the answer can still be ended after it; else the next token of
the shortest ending is taken instead. Must not know of llama.cpp, of jobs or of time.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from herder.pieces import Pieces
from herder.schema_tree import COMPILE, LIMITS, Node, longest_ending, tree_of
from worker.closing import Closing
from worker.engine import Drawn
from worker.sampling import Mask

SCHEMAS_KEPT = 64
WORN_BYTES = 64 * 1024
"""A schema whose answers have so many bytes in all is compiled afresh: its lexer remembers every state it was in."""
LONG = 256
"""Bytes, or tokens, of an ending that is not worked out for every token."""
_NUMBER = re.compile(rb"[0-9.]*")
_DIGITS = (b"", b"0", b"1", b"00", b"01", b".1", b"5", b"9")
"""What is tried after an ending's first number, or the number that was begun, where llguidance wants more of it."""
_PRINTABLE = [bytes([byte]) for byte in range(0x20, 0x7F)]


class Unfit(Exception):
    """An answer that fits this schema cannot be made here; says why."""


@dataclass
class Compiled:
    """A schema made ready; each answer begins with a copy of the matcher, and all share its lexer."""

    matcher: LLMatcher
    node: Node
    reserve: int  # tokens from which on every beginning of an answer can be ended
    written: int = 0  # bytes, of all answers
    broken: bool = False  # an answer came to a limit, and so would the next


class Vocabulary:
    """A model's tokens as llguidance and endings see them. Raises Unfit where they cannot write JSON."""

    def __init__(self, pieces: Sequence[bytes], ends: Sequence[int]) -> None:
        self.pieces = pieces
        self.ends = frozenset(ends)
        by_bytes = Pieces(pieces, self.ends)
        self.cut = by_bytes.cut
        missing = b"".join(each for each in _PRINTABLE if each not in by_bytes)
        if missing:
            raise Unfit(
                f"this model's vocabulary has no token for {missing[:20].decode()!r}, so it cannot write JSON"
            )
        last = sorted(self.ends)
        tokens = cast(Any, _Tokens(pieces, last, self.cut))
        self.native = LLTokenizer(tokens, eos_token=last or None, slices=LLTokenizer.json_slices())


class _Tokens:
    """What LLTokenizer reads of a vocabulary. One token more than there are: the end, for models that have none."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self, pieces: Sequence[bytes], ends: list[int], cut: Callable[[bytes], list[int] | None]
    ) -> None:
        self.eos_token_id = len(pieces)
        self.tokens = [b"" if token in set(ends) else piece for token, piece in enumerate(pieces)] + [b""]
        self.special_token_ids = [*ends, len(pieces)]
        self._cut = cut

    def __call__(self, text: str | bytes) -> list[int]:
        """Called by llguidance where the grammar leaves no choice of bytes."""
        return self._cut(text.encode() if isinstance(text, str) else text) or []


class Grammar:
    """One answer on its way: `mask` before each draw, `taken` after it."""

    def __init__(self, compiled: Compiled, vocabulary: Vocabulary, tokens: int) -> None:
        self._compiled = compiled
        self._matcher = compiled.matcher.deep_copy()
        self._vocabulary = vocabulary
        self._closing = Closing(compiled.node)
        self._reserve = compiled.reserve
        self._left = tokens
        self._plan: list[int] | None = None
        self._fault: str | None = None
        # Known from the start: that there is an ending, and that it fits.
        first = self._ending()
        if first is None:
            self._fault = "this model's vocabulary cannot write an answer that fits the schema"
        elif len(first) > tokens:
            self._fault = (
                f"the shortest answer that fits the schema has {len(first)} tokens here, tokens is {tokens}"
            )

    @property
    def fault(self) -> str | None:
        """Why there can be no answer."""
        return self._fault

    def mask(self, row: npt.NDArray[np.float32]) -> None:
        """Forbid what the grammar does not allow, in place. With a fault everything is allowed: `taken` tells it."""
        if self._fault is not None:
            return
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: len(row)].view(np.bool_)
        if self._matcher.is_error() or not allowed.any():
            self._break(
                f"the grammar came to a limit: {self._matcher.get_error()[:200] or 'nothing is allowed'}"
            )
            return
        np.copyto(row, np.float32(-np.inf), where=~allowed)

    def taken(self, drawn: Drawn) -> Drawn:
        """The token that is really taken: the drawn one, or that of the ending. Tells a fault, and a whole answer."""
        if drawn.useless:
            return drawn
        if self._fault is not None:
            return replace(drawn, fault=self._fault)
        if drawn.token in self._vocabulary.ends:
            return drawn if self._matcher.is_accepting() else self._failed(drawn, "it ended too early")
        self._left -= 1
        token, following = self._fitting(drawn.token)
        if token is None:
            return self._failed(drawn, "no ending fits what is left")
        if token != drawn.token:
            # What was told of the drawn token is not true of this one.
            drawn = Drawn(token, None if drawn.logprob is None else 0.0, ())
        if token in self._vocabulary.ends:
            return drawn
        if not self._matcher.consume_token(token):
            return self._failed(drawn, self._matcher.get_error()[:200])
        self._closing.write(self._vocabulary.pieces[token])
        self._compiled.written += len(self._vocabulary.pieces[token])
        self._plan = following
        return replace(drawn, whole=self._over())

    def _over(self) -> bool:
        """Whether nothing more may follow: by the grammar, by the budget, or since this model has no end to draw."""
        if self._matcher.is_stopped():
            return True
        return (self._left == 0 or not self._vocabulary.ends) and self._matcher.is_accepting()

    def _fitting(self, token: int) -> tuple[int | None, list[int] | None]:
        """The token to take, and the ending that is then known (None: there is room for any)."""
        # 1. Whatever is begun with this token, there is room to end it.
        if self._left >= self._reserve:
            return token, None
        # 2. A long ending has begun: it is gone through with, since another would be looked for at every token.
        if self._plan and (token == self._plan[0] or len(self._plan) > LONG):
            return self._plan[0], self._plan[1:]
        # 3. Looked for: an ending after this token that fits. A long one is not tried on llguidance yet.
        rest = self._closing.rest(self._vocabulary.pieces[token])
        if rest is not None and len(rest) > LONG:
            cut = rest if len(rest) <= self._left else self._vocabulary.cut(rest)
            if cut is not None and len(cut) <= self._left:
                return token, None
        elif rest is not None:
            ending = self._tried([token], rest)
            if ending is not None and len(ending) <= self._left:
                return token, ending
        # 4. The ending from here, which fits, because it did one token ago. An empty one: it ends here.
        plan = self._plan if self._plan is not None else self._ending()
        if plan is None or len(plan) > self._left + 1:
            return None, None
        return (plan[0], plan[1:]) if plan else (min(self._vocabulary.ends, default=None), None)

    def _ending(self) -> list[int] | None:
        """The tokens of a shortest ending from here; None where there is none."""
        rest = self._closing.rest()
        return None if rest is None else self._tried([], rest)

    def _tried(self, more: list[int], rest: bytes) -> list[int] | None:
        """The tokens of this ending, after those; None where llguidance does not accept it."""
        # llguidance has its own ways to end a number, which are not quite those of arithmetic.
        number = _NUMBER.match(rest)
        end = number.end() if number else 0
        for digits in _DIGITS:
            tokens = self._vocabulary.cut(rest[:end] + digits + rest[end:])
            if tokens is None:
                return None
            ahead = self._matcher.deep_copy()
            if ahead.consume_tokens(more + tokens) and ahead.is_accepting():
                return tokens
        return None

    def _failed(self, drawn: Drawn, why: str) -> Drawn:
        self._break(why)
        return replace(drawn, fault=why)

    def _break(self, why: str) -> None:
        self._fault = why
        self._compiled.broken = True


class Grammars:
    """The grammars of a model's slots, and the schemas that are ready for them. `ready` may be called by any thread."""

    def __init__(self, pieces: Sequence[bytes], ends: Sequence[int]) -> None:
        self._pieces, self._ends = pieces, ends
        self._vocabulary: Vocabulary | None = None
        self._compiled: OrderedDict[str, Compiled] = OrderedDict()
        self._by_slot: dict[int, Grammar] = {}
        self._lock = threading.Lock()

    def ready(self, schema: str, tokens: int) -> str | None:
        """Make ready for answers of so many tokens that fit this schema; why there cannot be any, None where all is
        well."""
        try:
            return self._grammar(schema, tokens, WORN_BYTES).fault
        except Unfit as error:
            return str(error)

    def open(self, slot: int, schema: str | None, tokens: int) -> Mask | None:
        """Another answer begins in a slot; what is to be done to its logits."""
        self._by_slot.pop(slot, None)
        if schema is None:
            return None
        try:
            grammar = self._grammar(schema, tokens)  # a step waits: worn will do
        except Unfit as error:
            # `ready` had said so; whoever opens all the same is told with the first token.
            grammar = _Refused(str(error))
        self._by_slot[slot] = grammar
        return grammar.mask

    def taken(self, drawn: dict[int, Drawn]) -> dict[int, Drawn]:
        """What was drawn for each slot, as its grammar has it."""
        if not self._by_slot:
            return drawn
        return {
            slot: self._by_slot[slot].taken(each) if slot in self._by_slot and not each.useless else each
            for slot, each in drawn.items()
        }

    def _grammar(self, schema: str, tokens: int, worn: float = math.inf) -> Grammar:
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(self._pieces, self._ends)
            made = self._compiled.get(schema)
            if made is None or made.broken or made.written >= worn:
                made = self._compiled[schema] = compiled(schema, self._vocabulary)
            self._compiled.move_to_end(schema)
            while len(self._compiled) > SCHEMAS_KEPT:
                self._compiled.popitem(last=False)
            return Grammar(made, self._vocabulary, tokens)


class _Refused(Grammar):
    """An answer that cannot be."""

    def __init__(self, why: str) -> None:
        self._fault = why


def compiled(schema: str, vocabulary: Vocabulary) -> Compiled:
    """A schema, ready. The herder has compiled the same text under the same limits. Raises Unfit."""
    try:
        node = tree_of(schema)
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=cast(Any, COMPILE))
        matcher = LLMatcher(vocabulary.native, grammar, log_level=0, limits=LLParserLimits(**LIMITS))
    except ValueError as error:
        raise Unfit(f"the schema cannot be compiled here: {error}"[:300]) from error
    if matcher.is_error():
        raise Unfit(f"the schema cannot be compiled here: {matcher.get_error()}"[:300])
    return Compiled(matcher, node, longest_ending(node) + 1)
