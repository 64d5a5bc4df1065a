"""The functions of the package on a default client, sans network."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

import llama_herder
from llama_herder import Herder
from tests.unit.chat_script import URL, Heard, Script


@pytest.fixture
def script() -> Iterator[Script]:
    """A herder in memory that the default client asks."""
    found = Script()
    with Herder(URL, "hk", transport=httpx.MockTransport(found)) as herder:
        llama_herder.set_default_herder(herder)
        yield found
        llama_herder.set_default_herder(None)


def test_run_gives_the_text(script: Script) -> None:
    assert llama_herder.run("What is the meaning of life?", 20, fee=100) == "answer 1"
    assert script.bodies[0] == {"prompt": "What is the meaning of life?", "tokens": 20, "fee": 100}
    assert llama_herder.run("hi", 20) == "answer 2"
    assert script.bodies[1] == {"prompt": "hi", "tokens": 20}  # the automatic price
    assert ("GET", "/info") not in script.asked


def test_run_with_a_callback_returns_at_once(script: Script) -> None:
    heard = Heard()
    job = llama_herder.run("hi", 20, heard, fee=100)
    assert (job.id, job.status) == ("job_1", "queued")
    assert heard.wait() == ["answer 1"]


@pytest.mark.parametrize(
    ("last", "asked", "model", "sent"),
    [
        (1.5, 1.1, None, 1.65),
        (1.0, 1.1, None, 1.1),
        (1.333, 1.05, None, 1.4),  # 1.39965, and rounded up
        (1.5, 2, "big", 6.001),
        (1.5, 1, "toy", 1.5),
        (2.0, 1e30, None, 2e30),  # the herder's to refuse
    ],
)
def test_its_multiplier_is_on_top_of_the_last_accepted_one(
    script: Script, last: float, asked: float, model: str | None, sent: float
) -> None:
    script.last_multiplier = last
    llama_herder.run("hi", 20, multiplier=asked, model=model)
    assert script.bodies[0]["multiplier"] == sent
    with pytest.raises(llama_herder.UnknownModel, match="there are: toy, big"):
        llama_herder.run("hi", 20, multiplier=asked, model="none")
    with pytest.raises(TypeError, match=r"a number such as 1\.1"):
        llama_herder.run("hi", 20, multiplier="1.1")  # type: ignore[call-overload]
    assert len(script.bodies) == 1


def test_everywhere_else_a_multiplier_is_of_the_base_fee(script: Script) -> None:
    llama_herder.chat([{"role": "user", "content": "hi"}], multiplier=1.1)
    llama_herder.generate("hi", multiplier=1.1)
    llama_herder.quote("hi", 5, multiplier=1.1)
    list(llama_herder.stream("hi", 5, multiplier=1.1))
    llama_herder.default_herder().run("hi", 5, multiplier=1.1)
    assert [body["multiplier"] for body in script.bodies] == [1.1] * 5


def test_what_cannot_be_done_is_said_before_anything_is_sent(script: Script) -> None:
    with pytest.raises(TypeError, match="leave `timeout` away"):
        llama_herder.run("hi", 20, print, timeout=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="callback must be a function of the text, such as print, not an int"):
        llama_herder.run("hi", 20, 5)  # type: ignore[call-overload]
    assert script.bodies == []


def test_the_default_client_is_made_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDER_URL", "http://other.example")
    llama_herder.set_default_herder(None)
    try:
        found = llama_herder.default_herder()
        assert found.url == "http://other.example"
        assert llama_herder.default_herder() is found
        monkeypatch.setattr("llama_herder._default._of_process", -1)  # as in a child that was forked
        assert llama_herder.default_herder() is not found
        found.close()
    finally:
        llama_herder.set_default_herder(None)


def test_a_client_of_your_own_is_neither_closed_nor_replaced(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Herder(URL, "hk", transport=httpx.MockTransport(script)) as mine:
        llama_herder.set_default_herder(mine)
        try:
            with monkeypatch.context() as forked:
                forked.setattr("llama_herder._default._of_process", -1)
                with pytest.raises(RuntimeError, match="set_default_herder here"):
                    llama_herder.info()
            assert script.asked == []
            assert llama_herder.default_herder() is mine
        finally:
            llama_herder.set_default_herder(None)
        assert mine.info().last_multiplier == 1.5


def test_a_star_leaves_the_map_of_python_alone() -> None:
    assert "map" not in llama_herder.__all__
    assert llama_herder.map.__module__ == "llama_herder._default"
    assert {"run", "chat", "generate", "stream", "quote", "info", "Chat"} <= set(llama_herder.__all__)
