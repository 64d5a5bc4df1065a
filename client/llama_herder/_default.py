"""The calls of one herd without making a client first: on a default one, from HERDER_URL and HERDER_API_KEY.

It is made with the first call, again in a process that was forked, and closed at the end of the program, which waits
for callbacks that are open. Thin: every call is one of `Herder`, but for `run`, whose bid has a meaning of its own.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, TypeVar, Unpack, overload

from llama_herder._callbacks import Expected, OnError
from llama_herder._calls import kind_of
from llama_herder._dialogue import TOKENS
from llama_herder._json import odd_number
from llama_herder._sync import Herder
from llama_herder._sync_batches import BatchResults
from llama_herder._sync_stream import EventStream
from llama_herder._typed import ModelClass
from llama_herder.batches import Prompts
from llama_herder.problems import InvalidRequest, UnknownModel
from llama_herder.types import Info, Job, Message, Options, Quote, Untyped

M = TypeVar("M", bound=ModelClass)

_lock = threading.Lock()
_default: Herder | None = None
_made_here = False
_of_process = 0


def default_herder() -> Herder:
    """The client of the functions of this module.

    Raises RuntimeError where it was set before this process was forked off: two processes cannot share connections,
    and a new one from the environment might be of another account.
    """
    global _default, _made_here, _of_process
    with _lock:
        forked = _default is not None and _of_process != os.getpid()
        if forked and not _made_here:
            raise RuntimeError(
                "the default client is of the process that this one was forked from: set_default_herder here, too"
            )
        if _default is None or forked:
            _default, _made_here, _of_process = Herder(), True, os.getpid()
            atexit.register(_default.close)
        return _default


def set_default_herder(herder: Herder | None) -> None:
    """Take this client from now on; None for a new one from the environment. Closes the one that was made here."""
    global _default, _made_here, _of_process
    with _lock:
        if herder is not None and herder is _default:
            return
        before, made_here = _default, _made_here
        _default, _made_here, _of_process = herder, False, os.getpid()
    if before is not None and made_here:
        atexit.unregister(before.close)
        before.close()


@overload
def run(prompt: str | Sequence[Message], tokens: int, callback: None = None, *, timeout: float | None = ...,
        on_error: None = ..., **options: Unpack[Options]) -> str: ...  # fmt: skip
@overload
def run(prompt: str | Sequence[Message], tokens: int, callback: Callable[[str], object], *,
        timeout: None = ..., on_error: OnError | None = ..., **options: Unpack[Options]) -> Job: ...  # fmt: skip
def run(
    prompt: str | Sequence[Message],
    tokens: int,
    callback: Callable[[str], object] | None = None,
    *,
    timeout: float | None = None,
    on_error: OnError | None = None,
    **options: Unpack[Options],
) -> str | Job:
    """The text of the answer; or with a callback the job, at once, and `callback(text)` when the answer is there.

    >>> llama_herder.run("What is a chatbot?", 20, fee=100)
    'A chatbot is a computer program that talks with people in everyday language.'
    >>> job = llama_herder.run("What is a chatbot?", 20, print, multiplier=1.1)

    `fee` is the whole fee. `multiplier` is, here and nowhere else, on top of the last accepted multiplier: 1.1 offers a
    tenth more than the last bid that was served. With neither the price is automatic; `max_fee` bounds it in any case.

    Raises what `Herder.run` does; with a callback only what a submission does, and the rest goes to `on_error(error)`,
    or is logged under `llama_herder`. Callbacks run in a thread of the default client. The end of the program waits for
    them, ten minutes at most or until Ctrl-C, and then says which jobs nobody was told of.
    """
    herder = default_herder()
    asked = _on_top(herder, options)
    if callback is None:
        return herder.run(prompt, tokens, timeout=timeout, **asked).text
    if not callable(callback):
        raise TypeError(f"callback must be a function of the text, such as print, not {kind_of(callback)}")
    if timeout is not None:
        raise TypeError("a callback waits for as long as it takes: leave `timeout` away")
    told = callback
    waiting = herder._waiting()
    waiting.check_room()
    job = herder.submit(prompt, tokens, **asked)
    waiting.add(Expected(job.id, lambda ended: told(ended.text), on_error))
    return job


def _on_top(herder: Herder, options: Options) -> Options:
    """The same with the multiplier as the herder knows it: of the base fee, with three decimals, rounded up."""
    wanted = options.get("multiplier")
    if wanted is None:
        return options
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        raise TypeError(f"multiplier must be a number such as 1.1, not {kind_of(wanted)}")
    if odd := odd_number(wanted, "multiplier"):  # before the herd is asked for the last one
        raise InvalidRequest(odd)
    last = _last_multiplier(herder, options.get("model"))
    whole = Decimal(str(wanted)) * Decimal(str(last))
    # Beyond that it has no three decimals to be rounded to, and the herder says what its limit is.
    short = whole.is_finite() and whole < 10**9
    bid = whole.quantize(Decimal("0.001"), ROUND_CEILING) if short else whole
    return {**options, "multiplier": float(bid)}


def _last_multiplier(herder: Herder, model: str | None) -> float:
    if model is None:
        return herder.info().last_multiplier
    models = herder.models()
    found = [each.last_multiplier for each in models if each.id == model]
    if not found:
        names = [each.id for each in models]
        raise UnknownModel(
            f"there is no model {model!r}; there are: {', '.join(names)}", extra={"models": names}
        )
    return found[0]


def chat(
    messages: Sequence[Message],
    tokens: int = TOKENS,
    *,
    timeout: float | None = None,
    **options: Unpack[Options],
) -> Job:
    """`Herder.chat` on the default client.

    >>> llama_herder.chat([{"role": "user", "content": "What is a chatbot?"}]).text
    'A chatbot is a computer program that talks with people in everyday language.'
    """
    return default_herder().chat(messages, tokens, timeout=timeout, **options)


@overload
def generate(prompt: str | Sequence[Message], tokens: int = ..., *, output_type: type[M],
             timeout: float | None = ..., **options: Unpack[Untyped]) -> M: ...  # fmt: skip
@overload
def generate(prompt: str | Sequence[Message], tokens: int = ..., *, output_type: Mapping[str, Any],
             timeout: float | None = ..., **options: Unpack[Untyped]) -> dict[str, Any]: ...  # fmt: skip
@overload
def generate(prompt: str | Sequence[Message], tokens: int = ..., *, output_type: None = ...,
             timeout: float | None = ..., **options: Unpack[Untyped]) -> str: ...  # fmt: skip
def generate(
    prompt: str | Sequence[Message],
    tokens: int = TOKENS,
    *,
    output_type: Any = None,
    timeout: float | None = None,
    **options: Unpack[Untyped],
) -> Any:
    """`Herder.generate` on the default client.

    >>> sorted(llama_herder.generate("How old are you?", 40, output_type={"age": "int", "units": "str"}))
    ['age', 'units']
    """
    return default_herder().generate(prompt, tokens, output_type=output_type, timeout=timeout, **options)


def stream(
    prompt: str | Sequence[Message], tokens: int, *, timeout: float | None = None, **options: Unpack[Options]
) -> EventStream:
    """`Herder.stream` on the default client.

    >>> for event in llama_herder.stream("What is a chatbot?", tokens=40):
    ...     if isinstance(event, llama_herder.Tokens):
    ...         print(event.text, end="")
    A chatbot is a computer program that talks with people in everyday language.
    """
    return default_herder().stream(prompt, tokens, timeout=timeout, **options)


def map(  # noqa: A001
    prompts: Prompts, tokens: int | None = None, *, ordered: bool = True, **options: Unpack[Options]
) -> BatchResults:
    """`Herder.map` on the default client. `from llama_herder import *` leaves Python's own `map` alone.

    >>> [result.text for result in llama_herder.map(["What is a chatbot?"], tokens=40)]
    ['A chatbot is a computer program that talks with people in everyday language.']
    """
    return default_herder().map(prompts, tokens, ordered=ordered, **options)


def quote(prompt: str | Sequence[Message], tokens: int | None = None, **options: Unpack[Options]) -> Quote:
    """`Herder.quote` on the default client; its multiplier is of the base fee, as everywhere but in `run`.

    >>> llama_herder.quote("What is a chatbot?", 40, multiplier=2).feasible
    True
    """
    return default_herder().quote(prompt, tokens, **options)


def info() -> Info:
    """`Herder.info` on the default client.

    >>> price = llama_herder.info()
    >>> price.set_prompt_fee + price.fee_per_token * 20
    30
    """
    return default_herder().info()
