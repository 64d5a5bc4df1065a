"""The texts of a vocabulary's tokens, and how the fixed text of an answer in a form is cut into them.

Pure. A leaf: the worker ends answers with what is cut here, and the herder counts the shortest answers by the same
rule. Must not know of llama.cpp, of schemas or of jobs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

PIECE_BYTES_TRIED = 24
"""Texts are cut into pieces of at most so many bytes."""


class Pieces:
    """The tokens of a vocabulary by their bytes; of two with the same, the first. Tokens that end are not text."""

    def __init__(self, pieces: Sequence[bytes], ends: Collection[int]) -> None:
        self._by_piece: dict[bytes, int] = {}
        for token, piece in enumerate(pieces):
            if 0 < len(piece) <= PIECE_BYTES_TRIED and token not in ends:
                self._by_piece.setdefault(piece, token)

    def __contains__(self, piece: bytes) -> bool:
        return piece in self._by_piece

    def cut(self, text: bytes) -> list[int] | None:
        """The text in tokens, each as long as it can be; None where a byte has no token."""
        tokens: list[int] = []
        at = 0
        while at < len(text):
            for length in range(min(PIECE_BYTES_TRIED, len(text) - at), 0, -1):
                token = self._by_piece.get(text[at : at + length])
                if token is not None:
                    break
            else:
                return None
            tokens.append(token)
            at += length
        return tokens
