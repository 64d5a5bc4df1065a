"""One conversation, sans IO: its turns, what of them is sent, and what is left out once they no longer fit.

Flows as those of `_calls` and `_streams`. Must not know httpx, threads or event loops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, cast

from llama_herder._calls import ask, chat, kind_of, running
from llama_herder._core import Flow
from llama_herder._patience import Patience
from llama_herder._streams import Emit, StreamFlow, streaming
from llama_herder.errors import HerderError, JobCancelled, JobFailed
from llama_herder.events import Done
from llama_herder.problems import ContextExceeded, TooLarge
from llama_herder.types import Job, Message, Options

TOKENS = 256
"""The most tokens of an answer where none are named; what is not needed is refunded."""

TURNS_MAX = 1_000
"""What a herder takes in one chat."""


class Dialogue:
    """What `Chat` and `AsyncChat` share: the turns, and how they are asked.

    `messages` are all turns but the system prompt's, oldest first: yours to read, to save and to change between two
    turns. `forgotten` of them, from the first on, no longer fit and are not sent. `job` is the last turn's.
    """

    def __init__(self, messages: Sequence[Message], tokens: int, options: Options) -> None:
        turns, system = chat(messages), options.pop("system", None)
        if turns and turns[0].get("role") == "system":
            if system is not None:
                raise TypeError("the messages begin with a system prompt: leave `system` away")
            system = turns.pop(0).get("content")
        self.system = system
        self.messages: list[Message] = turns
        self.forgotten = 0
        self.tokens = tokens
        self.options = options
        self.job: Job | None = None

    def clear(self) -> None:
        """Begin anew; the system prompt stays."""
        self.messages.clear()
        self.forgotten = 0

    def _sent(self, skip: int, said: Message) -> list[Message]:
        """What the model is to read: the system prompt, the turns from `skip` on, what was said last."""
        first: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*first, *self.messages[skip:], said]

    def _start(self) -> int:
        """The turns that are left out from the outset: what was too long before, or too many."""
        spare = TURNS_MAX - 2
        least = max(min(self.forgotten, len(self.messages)), len(self.messages) - spare)
        return least if least == 0 else next(cut for cut in [*self._cuts(least - 1)] if cut >= least)

    def _cuts(self, skip: int) -> list[int]:
        """Where the chat may begin instead: at later turns of the user's, or with what is said now."""
        users = [at for at in range(skip + 1, len(self.messages)) if self.messages[at].get("role") == "user"]
        return [*users, len(self.messages)] if skip < len(self.messages) else []

    def _saying(
        self, text: str, options: Mapping[str, Any], url: str, patience: Patience, timeout: float | None
    ) -> Flow[Job]:
        """Asks, with fewer of the oldest turns for as long as they do not fit, and remembers the answer."""
        said, skip, asked = _turn(text), self._start(), {**self.options, **options}
        while True:
            body = ask(self._sent(skip, said), self.tokens, asked)
            try:
                job = yield from running(body, None, url, patience, timeout)
            except (ContextExceeded, TooLarge, JobFailed) as error:
                skip = self._shorter(skip, said, error)
            except JobCancelled as error:
                self._remember(skip, said, error.job)
                raise
            else:
                self._remember(skip, said, job)
                return job

    def _streaming(
        self,
        text: str,
        options: Mapping[str, Any],
        url: str,
        patience: Patience,
        *,
        timeout: float | None,
        cancel_on_disconnect: bool,
    ) -> StreamFlow:
        """The same, as the answer comes."""
        said, skip, asked = _turn(text), self._start(), {**self.options, **options}
        while True:
            body = ask(self._sent(skip, said), self.tokens, asked)
            following = streaming(
                body, None, url, patience, timeout=timeout, cancel_on_disconnect=cancel_on_disconnect
            )
            try:
                yield from self._noted(following, skip, said)
            except (ContextExceeded, TooLarge, JobFailed) as error:
                skip = self._shorter(skip, said, error)
            else:
                return

    def _noted(self, flow: StreamFlow, skip: int, said: Message) -> StreamFlow:
        """A stream of which the end is remembered before it is handed over."""
        outcome: Any = None
        while True:
            try:
                effect = flow.send(outcome)
            except StopIteration:
                return
            if isinstance(effect, Emit) and isinstance(effect.event, Done):
                self._remember(skip, said, effect.event.job)
            outcome = yield effect

    def _remember(self, skip: int, said: Message, job: Job) -> None:
        """Both turns, or none: of a job without an answer nothing stays."""
        self.job = job
        if job.status == "succeeded" or (job.status == "cancelled" and job.text):
            self.messages += [said, job.message]
            self.forgotten = skip

    def _shorter(self, skip: int, said: Message, error: HerderError) -> int:
        """How many turns to leave out next; what cannot be helped in this way is raised.

        1. A refusal that says how much too long it is: the turns that make that up, by their length, rather one too
        few. 2. Any other: a quarter. 3. One exchange at the least, and never what was said last.
        """
        if isinstance(error, JobFailed) and (
            error.job.error is None or error.job.error.code != "context_exceeded"
        ):
            raise error
        cuts = self._cuts(skip)
        if not cuts:
            raise error
        counted = error.extra.get("prompt_tokens"), error.extra.get("context")
        if not all(isinstance(number, int) for number in counted):
            return cuts[(len(cuts) - 1) // 4]
        prompt_tokens, context = cast("tuple[int, int]", counted)
        sizes = [_size(turn) for turn in self.messages[skip:]]
        whole = sum(map(_size, self._sent(skip, said)))
        over = (prompt_tokens + self.tokens - context) * whole / max(prompt_tokens, 1)
        dropped = [0, *accumulate(sizes)]
        return max((cut for cut in cuts if dropped[cut - skip] <= over), default=cuts[0])


def _turn(text: object) -> Message:
    if not isinstance(text, str):
        raise TypeError(f"what is said must be text, not {kind_of(text)}")
    return {"role": "user", "content": text}


def _size(turn: Message) -> int:
    """Its length in characters, with a little for what the chat template puts around it."""
    return len(turn.get("content") or "") + 8
