"""Performs the client's flows by hand: answers in turn, and time that passes only where a flow sleeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import llama_herder
from llama_herder._core import (
    Broken,
    Effect,
    Flow,
    Outcome,
    Reply,
    Send,
    Sleep,
)
from llama_herder._patience import Patience

URL = "http://herd.example"
REFUSED = Broken(sent=False, why="connection refused", refused=True)
SILENT = Broken(sent=True, why="timed out")


class Clock:
    """Time that passes only where an effect says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def patience(clock: Clock | None = None, tries: int = 5, refused_s: float = 20.0) -> Patience:
    return Patience(tries=tries, refused_s=refused_s, clock=clock or Clock(), jitter=lambda: 1.0)


def ok(http: int = 200, /, **fields: Any) -> Reply:
    return Reply(http, {}, json.dumps(fields).encode())


def refusal(status: int, code: str, headers: dict[str, str] | None = None, **extra: Any) -> Reply:
    body = {"type": "about:blank", "status": status, "code": code, "detail": f"it is {code}", **extra}
    return Reply(status, headers or {}, json.dumps(body).encode())


def drive(
    flow: Flow[Any], answer: Callable[[Send], Outcome], clock: Clock | None = None
) -> tuple[list[Effect], Any]:
    """Performs a flow: every request is answered by `answer`, every sleep moves the clock."""
    effects: list[Effect] = []
    outcome: Outcome = None
    for _ in range(10_000):
        try:
            effect = flow.send(outcome)
        except StopIteration as end:
            return effects, end.value
        except llama_herder.HerderError as error:
            return effects, error
        effects.append(effect)
        outcome = None
        if isinstance(effect, Send):
            outcome = answer(effect)
        elif clock is not None:
            clock.now += effect.seconds
    raise AssertionError("the flow does not end")


def in_turn(*outcomes: Outcome) -> Callable[[Send], Outcome]:
    rest = list(outcomes)
    return lambda send: rest.pop(0)


def sends(effects: list[Effect]) -> list[Send]:
    return [effect for effect in effects if isinstance(effect, Send)]


def sleeps(effects: list[Effect]) -> list[float]:
    return [effect.seconds for effect in effects if isinstance(effect, Sleep)]
