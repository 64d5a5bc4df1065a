"""The library in a program of its own, against a real herd: callbacks and its end, pydantic, long chats."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum

import pytest
from pydantic import BaseModel, Field, field_validator

import llama_herder
from llama_herder import Chat
from tests.e2e.herd import DEMO, ROOT, Up, clean_environment, herd

CHATBOT = "A chatbot is a computer program that talks with people in everyday language."
LIMIT_S = 60


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with herd(rate_limit_per_minute=1_000_000) as running:
        yield running
        running.stop()


def program(up: Up, *lines: str) -> subprocess.Popen[str]:
    """A program of these lines, with the herd in its environment."""
    environment = clean_environment() | {"HERDER_URL": up.url, "HERDER_API_KEY": up.keys[DEMO]}
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(["import llama_herder", *lines])],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


def test_a_program_that_ends_waits_for_its_callbacks(up: Up) -> None:
    child = program(up, "llama_herder.run('What is a chatbot?', 20, print, fee=100)", "print('asked')")
    out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, out, err) == (0, f"asked\n{CHATBOT}\n", "")


def test_a_callback_may_ask_again_while_the_program_ends(up: Up) -> None:
    child = program(
        up,
        "def again(text):",
        "    print('first')",
        "    llama_herder.run('What is a chatbot?', 20, print)",
        "llama_herder.run('What is a llama?', 20, again)",
    )
    out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, out, err) == (0, f"first\n{CHATBOT}\n", "")


def test_ctrl_c_leaves_and_names_what_nobody_was_told_of(slow: str) -> None:
    with herd("--model", slow, "--slots", "1") as up, up.client() as herder:
        first = herder.submit("Hello", 1_500, ignore_eos=True)
        asked = "job = llama_herder.run('Hello', 1_000, print, ignore_eos=True)"
        with program(up, asked, "print(job.id, flush=True)") as child:
            assert child.stdout is not None
            assert child.stderr is not None
            job_id = child.stdout.readline().strip()
            assert child.stderr.readline() == "waiting for 1 answer; Ctrl-C leaves\n"
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=LIMIT_S)
        assert (out, err) == (
            "",
            f"not waited for: {job_id}; paid for all the same, read them later by their ids\n",
        )
        for job in (job_id, first.id):
            herder.cancel(job)
            herder.wait(job, timeout=LIMIT_S)
        up.stop()


class Mood(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Person(BaseModel):
    age: int = Field(ge=0, le=150)
    mood: Mood
    names: list[str] = Field(max_length=2)


class Strict(Person):
    @field_validator("mood")
    @classmethod
    def never(cls, mood: Mood) -> Mood:
        raise ValueError("no mood is good enough")


def test_an_answer_is_an_object_of_a_pydantic_model(up: Up) -> None:
    with up.client() as herder:
        person = herder.generate("Who are you?", 80, output_type=Person)
        assert isinstance(person, Person)
        assert 0 <= person.age <= 150
        with pytest.raises(llama_herder.OutputInvalid, match="no mood is good enough") as caught:
            herder.generate("Who are you?", 80, output_type=Strict)
        assert caught.value.job.status == "succeeded"


def test_a_chat_that_grows_past_the_context_goes_on(up: Up) -> None:
    with up.client() as herder:
        chat = Chat(herder, system="You are brief.", tokens=200)
        for _ in range(30):
            chat.messages += [
                {"role": "user", "content": "Tell me of llamas, of herds, and of how they are led uphill."},
                {"role": "assistant", "content": "They are led uphill by whoever knows the way."},
            ]
        assert chat.say("What is a chatbot?")
        assert 0 < chat.forgotten < 60
        assert chat.job is not None
        assert chat.job.result is not None
        assert (
            600 < chat.job.result.prompt_tokens <= 824
        )  # what the context of 1,024 leaves, and not much less
        before = chat.forgotten
        with pytest.raises(llama_herder.ContextExceeded):
            chat.say("word " * 1_000)
        assert (chat.forgotten, len(chat.messages)) == (before, 62)


def test_the_last_bid_is_topped(up: Up) -> None:
    child = program(
        up,
        "llama_herder.default_herder().run('hi', 5, multiplier=2)",
        "job = llama_herder.run('hi', 5, lambda text: None, multiplier=1.1)",
        "print(2 < job.multiplier <= 2.2)",  # an empty line's last bid fades, slowly
    )
    out, err = child.communicate(timeout=LIMIT_S)
    assert (out, err) == ("True\n", "")


@pytest.mark.parametrize("page", ["tutorial/first-program.md", "reference/python.md"])
def test_the_pages_run_as_they_stand(up: Up, page: str) -> None:
    """Every block of Python that begins with its imports, and in the tutorial those that build on them."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    whole = [block for block in blocks if block.startswith(("import", "from")) or "tutorial" in page]
    runs = [block for block in whole if "request." not in block]
    assert len(runs) >= 6
    out, err = program(up, *runs).communicate(timeout=LIMIT_S)
    assert err == ""
    assert CHATBOT in out
