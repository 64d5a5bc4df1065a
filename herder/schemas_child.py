"""The process in which a caller's schema is first compiled. Run as `python -m herder.schemas_child`; frames only.

The worker compiles the same text under the same limits, for a model; here a vocabulary of single bytes will do.
"""

from __future__ import annotations

from typing import Any, cast

from herder.child import answer
from herder.schema_tree import COMPILE, TRIAL_LIMITS, shortest, tree_of

MASKS_MAX = 512
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
        grammar = self._lib.LLMatcher.grammar_from_json_schema(schema, overrides=cast(Any, COMPILE))
        matcher = self._lib.LLMatcher(
            self._tokenizer, grammar, log_level=0, limits=self._lib.LLParserLimits(**TRIAL_LIMITS)
        )
        least = shortest(tree_of(schema))
        for byte in least[:MASKS_MAX]:
            # As it will be used: what may come next is asked at every place.
            matcher.compute_bitmask()
            matcher.consume_token(byte)
        if not matcher.consume_tokens(list(least[MASKS_MAX:])) or not matcher.is_accepting():
            why = matcher.get_error() or "its shortest answer is not allowed by it"
            return {"error": why.splitlines()[0][:200]}
        return {}


def main() -> None:
    """Answer until stdin ends."""
    made: list[Compiler] = []

    def handle(question: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(Compiler())
        return made[0].compile(question["schema"])

    answer(handle, memory_bytes=MEMORY_BYTES_MAX)


if __name__ == "__main__":
    main()
