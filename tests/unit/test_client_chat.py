"""Chats that remember, sans network: what is sent, what is left out once it is too long, what stays of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import llama_herder
from llama_herder import AsyncChat, AsyncHerder, Chat, Done, Herder, Message, Tokens
from llama_herder._dialogue import TURNS_MAX
from tests.unit.chat_script import BOTH, Script, use

Kind = type[Herder | AsyncHerder]
Talk = Chat | AsyncChat


def talked(
    kind: Kind, script: Script, *said: str, stream: bool = False, change: Callable[[Talk], object] | None = None,
    **options: Any,
) -> Talk:  # fmt: skip
    """A chat after these turns; `change` is made before the last."""

    def prepared(chat: Talk, at: int) -> Talk:
        if change is not None and at == len(said) - 1:
            change(chat)
        return chat

    def ordinary(herder: Herder) -> Talk:
        chat = Chat(herder, **options)
        for at, text in enumerate(said):
            prepared(chat, at)
            _ = list(chat.stream(text)) if stream else chat.say(text)
        return chat

    async def awaited(herder: AsyncHerder) -> Talk:
        chat = AsyncChat(herder, **options)
        for at, text in enumerate(said):
            prepared(chat, at)
            _ = [event async for event in chat.stream(text)] if stream else await chat.say(text)
        return chat

    found: Talk = use(kind, script, ordinary if kind is Herder else awaited)
    return found


def turns(count: int, words: int = 10) -> list[Message]:
    """So many exchanges, each turn of so many words."""
    text = " ".join(["word"] * (words - 1))
    return [
        {"role": role, "content": f"{role[0]}{at} {text}"}
        for at in range(count)
        for role in ("user", "assistant")
    ]


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_sends_all_that_was_said(kind: Kind, stream: bool) -> None:
    script = Script()
    chat = talked(kind, script, "one", "two", stream=stream, system="Be brief.", tokens=7, model="toy")
    assert script.read(0) == ["Be brief.", "one"]
    assert script.read(1) == ["Be brief.", "one", "answer 1", "two"]
    assert [turn["role"] for turn in script.bodies[1]["messages"]] == ["system", "user", "assistant", "user"]
    assert (script.bodies[1]["tokens"], script.bodies[1]["model"]) == (7, "toy")
    assert "system" not in script.bodies[1]
    assert [turn["content"] for turn in chat.messages] == ["one", "answer 1", "two", "answer 2"]
    assert chat.job is not None
    assert chat.job.text == "answer 2"
    assert script.keys[0] != script.keys[1]


@BOTH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("counts", [True, False])
def test_the_oldest_turns_are_left_out_never_the_system_prompt(
    kind: Kind, stream: bool, counts: bool
) -> None:
    script = Script(context=120, counts=counts)
    options: dict[str, Any] = {"system": "Be very brief.", "tokens": 10, "messages": turns(40)}
    chat = talked(kind, script, "what now", stream=stream, **options)
    sent = script.read()
    assert sent[0] == "Be very brief."
    assert sent[-1] == "what now"
    assert sent[1].startswith("u")  # a turn of the user's
    assert sent[1:-1] == [turn["content"] for turn in chat.messages[chat.forgotten : -2]]
    assert len(chat.messages) == 82
    if counts:  # as many as fit: 120 = 10 + 3 + 2 + 5 exchanges of 20 words
        assert (len(sent), chat.forgotten) == (12, 70)
        assert len(script.bodies) <= 5
    assert len(script.bodies) < 40


@BOTH
def test_what_was_left_out_is_not_tried_again(kind: Kind) -> None:
    script = Script(context=120)
    chat = talked(kind, script, "what now", "and now", system="Be very brief.", tokens=10, messages=turns(40))
    last = len(script.bodies) - 1
    assert len(script.read(last)) <= 14
    assert chat.forgotten >= 70
    cleared = talked(
        kind, Script(context=60), "a", "b", tokens=1, messages=turns(9), change=lambda c: c.clear()
    )
    assert (cleared.messages[0]["content"], len(cleared.messages)) == ("b", 2)
    assert cleared.forgotten == 0


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_that_alone_is_too_long_is_refused_and_changes_nothing(kind: Kind, stream: bool) -> None:
    script = Script(context=50)
    kept: list[Talk] = []
    with pytest.raises(llama_herder.ContextExceeded):
        talked(kind, script, "word " * 60, stream=stream, tokens=5, messages=turns(2), change=kept.append)
    assert (len(kept[0].messages), kept[0].forgotten) == (4, 0)
    assert len(script.read()) == 1


@BOTH
def test_a_worker_that_refuses_is_asked_with_less(kind: Kind) -> None:
    refused = {"status": "failed", "error": {"code": "context_exceeded", "message": "too long"}}
    script = Script(answers=[refused, refused, {"status": "succeeded"}])
    chat = talked(kind, script, "what now", messages=turns(8))
    assert [len(script.read(at)) for at in range(3)] == [17, 13, 9]
    assert chat.forgotten == 8
    broken = {"status": "failed", "error": {"code": "engine_error", "message": "it broke"}}
    with pytest.raises(llama_herder.JobFailed, match="it broke"):
        talked(kind, script := Script(answers=[broken]), "what now", messages=turns(8))
    assert len(script.bodies) == 1


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_of_a_cancelled_turn_stays_what_was_said(kind: Kind, stream: bool) -> None:
    for text, stays in (("half", ["hi", "half"]), ("", [])):
        kept: list[Talk] = []
        script = Script(answers=[{"status": "cancelled", "text": text}])
        try:
            talked(kind, script, "hi", stream=stream, change=kept.append)
        except llama_herder.JobCancelled:
            assert not stream
        assert [turn["content"] for turn in kept[0].messages] == stays


@BOTH
def test_a_chat_never_has_more_turns_than_a_herder_takes(kind: Kind) -> None:
    script = Script(context=10**9)
    talked(kind, script, "now", system="Brief.", messages=turns(TURNS_MAX))
    assert len(script.read()) <= TURNS_MAX
    assert len(script.read()) >= TURNS_MAX - 2
    assert script.bodies[-1]["messages"][1]["role"] == "user"


@BOTH
def test_a_chat_goes_on_with_an_earlier_one(kind: Kind) -> None:
    script = Script()
    earlier: list[Message] = [{"role": "system", "content": "S"}, {"role": "user", "content": "u"}]
    chat = talked(kind, script, "now", messages=earlier, multiplier=2)
    assert script.read() == ["S", "u", "now"]
    assert chat.system == "S"
    assert earlier[0]["role"] == "system"
    with pytest.raises(TypeError, match="leave `system` away"):
        talked(kind, script, "now", messages=earlier, system="T")
    with pytest.raises(TypeError, match="must be text, not a list"):
        talked(kind, script, [])  # type: ignore[arg-type]
    assert len(script.bodies) == 1


def test_a_stream_that_is_left_early_is_not_remembered() -> None:
    script = Script()

    def left(herder: Herder) -> Chat:
        chat = Chat(herder)
        with chat.stream("hi") as events:
            for event in events:
                if isinstance(event, Tokens):
                    break
        assert chat.messages == []
        done = [event for event in chat.stream("hi") if isinstance(event, Done)]
        assert done[0].job.message == {"role": "assistant", "content": "answer 2"}
        return chat

    assert len(use(Herder, script, left).messages) == 2


@BOTH
def test_chat_takes_turns_and_gives_the_next_one(kind: Kind) -> None:
    script = Script()
    job = use(
        kind, script, lambda herder: herder.chat([{"role": "user", "content": "hi"}], stop="x", timeout=5)
    )
    assert (job.text, job.message["role"]) == ("answer 1", "assistant")
    assert (script.bodies[0]["tokens"], script.bodies[0]["stop"]) == (256, ["x"])
    with pytest.raises(TypeError, match="list of messages"):
        use(kind, script, lambda herder: herder.chat("hi"))


@BOTH
def test_every_page_of_a_list_is_read(kind: Kind) -> None:
    script = Script()

    async def collected(herder: AsyncHerder) -> list[str]:
        return [job.id async for job in herder.every(herder.jobs)]

    ids = use(
        kind, script, collected if kind is AsyncHerder else lambda h: [j.id for j in h.every(h.jobs, limit=2)]
    )
    assert ids == [f"job_{at}" for at in range(6)]
    assert len(script.asked) == 3


def test_a_list_that_does_not_end_is_an_error() -> None:
    page = llama_herder.Page((1, 2), "same")

    def listing(**options: Any) -> llama_herder.Page[int]:
        return page

    with Herder("http://herd.example", "hk") as herder:
        items = herder.every(listing)
        assert [next(items) for _ in range(4)] == [1, 2, 1, 2]
        with pytest.raises(llama_herder.HerderError, match="does not end"):
            next(items)


def test_two_tasks_may_each_have_a_chat() -> None:
    script = Script()

    async def both(herder: AsyncHerder) -> list[str]:
        return list(await asyncio.gather(AsyncChat(herder).say("a"), AsyncChat(herder).say("b")))

    assert sorted(use(AsyncHerder, script, both)) == ["answer 1", "answer 2"]
