"""The process that counts tokens: llama.cpp with vocabularies only, no weights. `python -m herder.counting_child`.

The one file of the herder that may import llama_cpp, since a vocabulary file is parsed by native code.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from typing import Any

from herder.child import answer
from herder.pieces import PIECE_BYTES_TRIED, Pieces
from herder.reasoning import MARKS_BYTES

MEMORY_BYTES_MAX = 8 * 2**30  # address space; a vocabulary of 256 k pieces takes some 100 MB of it


class Vocabularies:
    """Loaded vocabularies by model name, the least recently used one goes first."""

    def __init__(self) -> None:
        import llama_cpp

        self._lib = llama_cpp
        # Kept, since llama.cpp holds on to the pointer.
        self._silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._pieces: dict[str, Pieces] = {}

    def load(self, model: str, path: str, keep: int) -> dict[str, Any]:
        """Load a GGUF without tensors under a name."""
        params = self._lib.llama_model_default_params()
        params.vocab_only = True
        loaded = self._lib.llama_model_load_from_file(path.encode(), params)
        if not loaded:
            return {"error": "not a vocabulary that llama.cpp can read"}
        self._drop(model)
        self._models[model] = loaded
        while len(self._models) > keep:
            self._drop(next(iter(self._models)))
        return {}

    def count(self, model: str, text: str) -> dict[str, Any]:
        """The tokens of a text, special tokens recognised, the start token added where the model adds it."""
        if model not in self._models:
            return {"error": "unloaded"}
        self._models.move_to_end(model)
        _, count = self._tokens(self._lib.llama_model_get_vocab(self._models[model]), text)
        return {"tokens": abs(count)}

    def cut(self, model: str, text: str) -> dict[str, Any]:
        """The tokens of a text that is put into an answer, as a worker cuts it; 0 where it cannot be written."""
        if model not in self._models:
            return {"error": "unloaded"}
        self._models.move_to_end(model)
        if model not in self._pieces:
            self._pieces[model] = self._read_pieces(self._lib.llama_model_get_vocab(self._models[model]))
        return {"tokens": len(self._pieces[model].cut(text.encode()) or ())}

    def spell(self, model: str, tokens: list[int]) -> dict[str, Any]:
        """The text that is cut into exactly these tokens, a start token before them or not; empty where none is."""
        if model not in self._models:
            return {"error": "unloaded"}
        self._models.move_to_end(model)
        vocabulary = self._lib.llama_model_get_vocab(self._models[model])
        if not all(0 <= token < self._lib.llama_vocab_n_tokens(vocabulary) for token in tokens):
            return {"text": ""}
        start = (
            [self._lib.llama_vocab_bos(vocabulary)] if self._lib.llama_vocab_get_add_bos(vocabulary) else []
        )
        tokens = tokens[len(start) :] if tokens[:1] == start else tokens
        text = self._text(vocabulary, tokens)
        room, count = self._tokens(vocabulary, text)
        return {"text": text if list(room[: max(count, 0)]) == start + tokens else ""}

    def _text(self, vocabulary: Any, tokens: list[int]) -> str:
        """The text of tokens, special ones as they are written; empty where it is no whole text."""
        given = (self._lib.llama_token * len(tokens))(*tokens)
        room = ctypes.create_string_buffer(1)
        # Less than 0: it is so long.
        size = -self._lib.llama_detokenize(vocabulary, given, len(tokens), room, 0, False, True)
        room = ctypes.create_string_buffer(max(size, 1))
        size = self._lib.llama_detokenize(vocabulary, given, len(tokens), room, len(room), False, True)
        try:
            return room.raw[: max(size, 0)].decode()
        except UnicodeDecodeError:
            return ""

    def _tokens(self, vocabulary: Any, text: str) -> tuple[Any, int]:
        """The tokens of a text as a worker reads it, and how many; less than 0: so many have no room."""
        written = text.encode()
        room = (self._lib.llama_token * (len(written) + 16))()
        return room, self._lib.llama_tokenize(vocabulary, written, len(written), room, len(room), True, True)

    def _read_pieces(self, vocabulary: Any) -> Pieces:
        """Its tokens as an answer shows them: control tokens are no text, but for the marks of reasoning."""
        room = ctypes.create_string_buffer(PIECE_BYTES_TRIED)
        pieces: list[bytes] = []
        ends: set[int] = set()
        for token in range(self._lib.llama_vocab_n_tokens(vocabulary)):
            # Less than 0: it is longer, and so never tried.
            length = self._lib.llama_token_to_piece(vocabulary, token, room, len(room), 0, True)
            piece = room.raw[: max(length, 0)]
            hidden = self._lib.llama_vocab_is_control(vocabulary, token) and piece not in MARKS_BYTES
            pieces.append(b"" if hidden else piece)
            if self._lib.llama_vocab_is_eog(vocabulary, token):
                ends.add(token)
        return Pieces(pieces, ends)

    def _drop(self, model: str) -> None:
        self._pieces.pop(model, None)
        loaded = self._models.pop(model, None)
        if loaded:
            self._lib.llama_model_free(loaded)


def main() -> None:
    """Answer until stdin ends."""
    kept: list[Vocabularies] = []

    def handle(question: dict[str, Any]) -> dict[str, Any]:
        if not kept:
            kept.append(Vocabularies())
        if question["op"] == "load":
            return kept[0].load(question["model"], question["path"], question["keep"])
        if question["op"] == "spell":
            return kept[0].spell(question["model"], question["tokens"])
        asked = kept[0].cut if question["op"] == "cut" else kept[0].count
        return asked(question["model"], question["text"])

    answer(handle, memory_bytes=MEMORY_BYTES_MAX)


if __name__ == "__main__":
    main()
