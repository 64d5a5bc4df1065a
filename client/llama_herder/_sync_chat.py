"""`Chat`, and what `Herder` can do beyond single jobs: chats, typed answers, callbacks, whole lists.

Thin: performs the flows of `_dialogue` and `_typed`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from llama_herder import _calls, _paging, _typed
from llama_herder._callbacks import Callbacks, Expected, OnAnswer, OnError
from llama_herder._core import Flow
from llama_herder._dialogue import TOKENS, Dialogue
from llama_herder._json import Page
from llama_herder._patience import Patience
from llama_herder._typed import ModelClass
from llama_herder.types import Job, Message, Options, Untyped

if TYPE_CHECKING:
    from llama_herder._sync import Herder
    from llama_herder._sync_stream import EventStream

T = TypeVar("T")
M = TypeVar("M", bound=ModelClass)


class Chat(Dialogue):
    """A conversation that remembers what was said; not for two threads at once.

    >>> chat = Chat(herder, system="Answer in one sentence.")
    >>> chat.say("What is a chatbot?")
    'A chatbot is a computer program that talks with people in everyday language.'
    >>> [turn["role"] for turn in chat.messages]
    ['user', 'assistant']

    Without a herder it is the default one. `messages` goes on with an earlier conversation. Each answer has up to
    `tokens` tokens, and the options of `submit`; those of a single turn may differ. Once the turns no longer fit the
    model's context, the oldest are not sent any more; the system prompt always is. A turn without an answer (an error,
    a stream that is left early) leaves the conversation as it was.
    """

    def __init__(
        self,
        herder: Herder | None = None,
        *,
        messages: Sequence[Message] = (),
        tokens: int = TOKENS,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(messages, tokens, options)
        if herder is None:
            from llama_herder._default import default_herder

            herder = default_herder()
        self._herder = herder

    def say(self, text: str, *, timeout: float | None = None, **options: Unpack[Options]) -> str:
        """The answer to one more turn of the user's. Raises what `Herder.run` does.

        ContextExceeded: with every earlier turn left out it still does not fit.
        """
        herder = self._herder
        flow = self._saying(text, options, herder.url, herder._patience, timeout)
        return herder._perform(flow).text

    def stream(
        self,
        text: str,
        *,
        timeout: float | None = None,
        cancel_on_disconnect: bool = False,
        **options: Unpack[Options],
    ) -> EventStream:
        """The same as it comes: the events of `Herder.stream`. A cancelled answer is remembered as far as it came.

        >>> for event in Chat(herder).stream("What is a chatbot?"):
        ...     if isinstance(event, Tokens):
        ...         print(event.text, end="")
        A chatbot is a computer program that talks with people in everyday language.
        """
        herder = self._herder
        return herder._stream(
            self._streaming(
                text,
                options,
                herder.url,
                herder._patience,
                timeout=timeout,
                cancel_on_disconnect=cancel_on_disconnect,
            )
        )


class ChatCalls:
    """What `Herder` has of it."""

    url: str
    _patience: Patience
    _callbacks: Callbacks | None = None
    _starting = threading.Lock()

    if TYPE_CHECKING:

        def _perform(self, flow: Flow[T]) -> T: ...
        def wait(self, job: Job | str, timeout: float | None = None) -> Job: ...

    def chat(
        self,
        messages: Sequence[Message],
        tokens: int = TOKENS,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """The answer to a chat, as `run` gives it. `Chat` keeps the history for you.

        >>> history = [{"role": "user", "content": "What is a chatbot?"}]
        >>> job = herder.chat(history)
        >>> history.append(job.message)
        >>> job.message["role"]
        'assistant'
        """
        body = _calls.ask(_calls.chat(messages), tokens, options)
        return self._perform(_calls.running(body, idempotency_key, self.url, self._patience, timeout))

    @overload
    def generate(self, prompt: str | Sequence[Message], tokens: int = ..., *, output_type: type[M],
                 timeout: float | None = ..., idempotency_key: str | None = ...,
                 **options: Unpack[Untyped]) -> M: ...  # fmt: skip
    @overload
    def generate(self, prompt: str | Sequence[Message], tokens: int = ..., *, output_type: Mapping[str, Any],
                 timeout: float | None = ..., idempotency_key: str | None = ...,
                 **options: Unpack[Untyped]) -> dict[str, Any]: ...  # fmt: skip
    @overload
    def generate(self, prompt: str | Sequence[Message], tokens: int = ..., *, output_type: None = ...,
                 timeout: float | None = ..., idempotency_key: str | None = ...,
                 **options: Unpack[Untyped]) -> str: ...  # fmt: skip
    def generate(
        self,
        prompt: str | Sequence[Message],
        tokens: int = TOKENS,
        *,
        output_type: type[Any] | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Untyped],
    ) -> Any:
        """The answer itself: text, or with an `output_type` a dict of this form, or an object of a pydantic model.

        >>> answer = herder.generate("How old are you?", output_type={"age": "int"})
        >>> type(answer["age"])
        <class 'int'>

        The model is not told of the form: say in the prompt what you want. Raises what `run` does (an answer that
        cannot be made to fit is JobFailed, refunded), and OutputInvalid where the class refuses what its schema allows.
        """
        form = _typed.wanted(output_type)
        body = _calls.ask(prompt, tokens, {**options, **form.options})
        flow = _calls.running(body, idempotency_key, self.url, self._patience, timeout)
        return form.read(self._perform(flow))

    def on_answer(self, job: Job | str, callback: OnAnswer, *, on_error: OnError | None = None) -> None:
        """Call `callback(job)` once the job has an answer, in a thread of this client; returns at once.

        >>> herder.on_answer(herder.submit("What is a chatbot?", tokens=40), lambda job: print(job.text))

        A job without an answer, or one that cannot be waited for, calls `on_error(error)`; without that the error is
        logged under `llama_herder`. `close`, and the end of the program, wait for what is open, ten minutes at most or
        until Ctrl-C, and log which jobs nobody was told of; a `with` block that an exception ends does not wait.
        Up to 10,000 may be open; 16 threads take turns, so for very many take `map`.
        """
        waiting = self._waiting()
        waiting.check_room()
        waiting.add(Expected(_calls.id_of(job), callback, on_error))

    def every(self, listing: Callable[..., Page[T]], *arguments: Any, **options: Any) -> Iterator[T]:
        """All of a list, read page by page as the loop goes on.

        >>> for job in herder.every(herder.jobs):
        ...     assert job.id.startswith("job_")

        `listing` is a call that gives a Page; what stands behind it is passed on: `every(herder.admin.ledger, "ann")`.
        """
        pages: _paging.Pages[T] = _paging.paged()
        cursor = next(pages)
        while True:
            page = listing(*arguments, **{"limit": _paging.PAGE_ITEMS, **options, "cursor": cursor})
            yield from page
            try:
                cursor = pages.send(page)
            except StopIteration:
                return

    def _waiting(self) -> Callbacks:
        with self._starting:
            if self._callbacks is None:
                self._callbacks = Callbacks(self.wait)
            return self._callbacks
