"""The process in which a caller's schema is first compiled. Run as `python -m herder.schemas_child`; frames only.

The worker compiles the same text under the same limits, for a model; here a vocabulary of single bytes will do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

from herder.child import answer
from herder.schema_tree import COMPILE, TRIAL_LIMITS, Node, shortest, tree_of, turns, varied

MASKS_MAX = 512  # of an answer
ANSWERS_MAX = 64
TRIED_BYTES_MAX = 64 * 1024  # in all
COMPILE_CPU_S = 1.0
"""Of the processor's time, so that a busy machine refuses no more than an idle one; a worker will spend as much."""
MEMORY_BYTES_MAX = 2 * 2**30  # address space; what is compiled takes a few MB of it


class _Bytes:
    """A vocabulary of the 256 bytes, and an end."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = 256
    special_token_ids = (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"")

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


class Compiler:
    """llguidance with that vocabulary."""

    def __init__(self) -> None:
        import llguidance

        self._lib = llguidance
        self._tokenizer = llguidance.LLTokenizer(cast(Any, _Bytes()))

    def compile(self, schema: str) -> dict[str, Any]:
        """`{}` for a schema that can be compiled and whose shortest answer it allows, else `{error}`."""
        began = time.thread_time()
        grammar = self._lib.LLMatcher.grammar_from_json_schema(schema, overrides=cast(Any, COMPILE))
        matcher = self._lib.LLMatcher(
            self._tokenizer, grammar, log_level=0, limits=self._lib.LLParserLimits(**TRIAL_LIMITS)
        )
        for text, whole in _answers(tree_of(schema)):
            tried = matcher.deep_copy()
            for byte in text[:MASKS_MAX]:
                # As it will be used: what may come next is asked at every place.
                tried.compute_bitmask()
                tried.consume_token(byte)
            allowed = tried.consume_tokens(list(text[MASKS_MAX:]))
            if not allowed or tried.is_error() or (whole and not tried.is_accepting()):
                why = tried.get_error() or "an answer that fits is not allowed by it"
                return {"error": why.splitlines()[0][:200]}
            if time.thread_time() - began > COMPILE_CPU_S:
                return {"error": "it takes too long; make it simpler"}
        return {}


def _answers(node: Node) -> Iterator[tuple[bytes, bool]]:
    """The shortest answer, then answers in which everything comes that may; and whether they are whole."""
    yield shortest(node), True
    left = TRIED_BYTES_MAX
    for turn in range(min(turns(node), ANSWERS_MAX)):
        text = bytearray()
        for part in varied(node, turn):
            text += part[: left - len(text)]
            if len(text) >= left:
                yield bytes(text), False
                return
        yield bytes(text), True
        left -= len(text)


def main() -> None:
    """Answer until stdin ends."""
    compiler = Compiler()  # before the first question, whose time is limited

    def handle(question: dict[str, Any]) -> dict[str, Any]:
        return compiler.compile(question["schema"])

    answer(handle, memory_bytes=MEMORY_BYTES_MAX)


if __name__ == "__main__":
    main()
