"""How many tokens a text is, exactly, asked of the model's own vocabulary in a child process.

Needed only where certain bounds leave it open whether a prompt fits. Where llama_cpp is not installed, or the child
fails, there is no answer and the worker decides. Knows nothing of prices or jobs.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from herder.child import Child, ChildFailed
from herder.logs import get_logger

COUNT_S_MAX = 10.0
LOAD_S_MAX = 60.0
_VOCABS_MAX = 8
_AWAY_S = 60.0

log = get_logger(__name__)


class Counter:
    """Exact counts. `fetch` gives a model's vocabulary (a GGUF without tensors), None where it has none."""

    def __init__(self, fetch: Callable[[str], Awaitable[bytes | None]]) -> None:
        self._fetch = fetch
        self._child = Child("herder.counting_child", limit_s=COUNT_S_MAX)
        self._loaded: dict[str, int] = {}
        self._loading = asyncio.Lock()
        self._away_until: dict[str, float] = {}

    async def count(self, model: str, text: str) -> int | None:
        """The tokens of `text` as the worker will count them, start token included; None where nobody here knows."""
        answer = await self._asked({"op": "count", "model": model, "text": text})
        return None if answer is None else int(answer["tokens"])

    async def cut(self, model: str, text: str) -> int | None:
        """The tokens of a text that is put into an answer, as a worker cuts it; 0 where it cannot be written, None
        where nobody here knows."""
        answer = await self._asked({"op": "cut", "model": model, "text": text})
        return None if answer is None else int(answer["tokens"])

    async def spell(self, model: str, tokens: list[int]) -> str | None:
        """The text that a worker cuts into exactly these tokens, without a start token that the model adds by itself;
        empty where there is none, None where nobody here knows."""
        answer = await self._asked({"op": "spell", "model": model, "tokens": tokens})
        return None if answer is None else str(answer["text"])

    async def _asked(self, question: dict[str, Any]) -> dict[str, Any] | None:
        model = question["model"]
        if time.monotonic() < self._away_until.get(model, 0.0):
            return None
        try:
            if not await self._has_vocabulary(model):
                return None
            answer = await self._child.ask(question)
            if answer.get("error") == "unloaded":  # a fresh child after a crash
                self._loaded.pop(model, None)
                if not await self._has_vocabulary(model):
                    return None
                answer = await self._child.ask(question)
        except ChildFailed as error:
            self._stay_away(model, str(error))
            return None
        if "error" in answer:
            self._stay_away(model, str(answer["error"]))
            return None
        return answer

    async def close(self) -> None:
        """End the child."""
        await self._child.close()

    async def _has_vocabulary(self, model: str) -> bool:
        async with self._loading:
            if self._loaded.get(model) == self._child.starts:
                return True
            vocabulary = await self._fetch(model)
            if not vocabulary:
                return False
            path = await asyncio.to_thread(_write, vocabulary)
            try:
                question = {"op": "load", "model": model, "path": str(path), "keep": _VOCABS_MAX}
                answer = await self._child.ask(question, limit_s=LOAD_S_MAX)
            finally:
                path.unlink(missing_ok=True)
            if "error" in answer:
                raise ChildFailed(str(answer["error"]))
            self._loaded[model] = self._child.starts
            return True

    def _stay_away(self, model: str, why: str) -> None:
        """A model that fails is left alone for a while: a load at each request would cost more than it decides."""
        self._away_until[model] = time.monotonic() + _AWAY_S
        self._loaded.pop(model, None)
        log.warning("no exact counts for a minute; the workers decide what fits", model=model, why=why)


def _write(vocabulary: bytes) -> Path:
    name = hashlib.sha256(vocabulary).hexdigest()[:12]
    descriptor, path = tempfile.mkstemp(prefix=f"herder-vocab-{name}-", suffix=".gguf")
    with os.fdopen(descriptor, "wb") as file:
        file.write(vocabulary)
    return Path(path)
