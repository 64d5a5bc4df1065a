"""The process that counts tokens: llama.cpp with vocabularies only, no weights. `python -m herder.counting_child`.

The one file of the herder that may import llama_cpp, since a vocabulary file is parsed by native code.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from typing import Any

from herder.child import answer

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
        vocabulary = self._lib.llama_model_get_vocab(self._models[model])
        written = text.encode()
        room = (self._lib.llama_token * (len(written) + 16))()
        tokens = self._lib.llama_tokenize(vocabulary, written, len(written), room, len(room), True, True)
        return {"tokens": abs(tokens)}

    def _drop(self, model: str) -> None:
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
        return kept[0].count(question["model"], question["text"])

    answer(handle, memory_bytes=MEMORY_BYTES_MAX)


if __name__ == "__main__":
    main()
