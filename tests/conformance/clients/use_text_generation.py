"""The `text-generation` package, as the chat lesson uses it."""

from __future__ import annotations

import json

from checking import BUSY_KEY, BUSY_URL, KEY, POOR_KEY, URL, WRONG_KEY, at_once, check, main, raises
from text_generation import Client, errors
from text_generation.types import Grammar, GrammarType


def _client(key: str = KEY, url: str = URL) -> Client:
    return Client(url, headers={"Authorization": f"Basic {key}"}, timeout=120)


client = _client()
chats = _client(url=f"{URL}/tgi")  # its chats have a form of their own, and an address for it
PROMPT = "Has math been invented or discovered?"


def format_chat_prompt(message: str, chat_history: list[tuple[str, str]], instruction: str) -> str:
    prompt = f"System:{instruction}"
    for user_message, bot_message in chat_history:
        prompt = f"{prompt}\nUser: {user_message}\nAssistant: {bot_message}"
    return f"{prompt}\nUser: {message}\nAssistant:"


@check("completion")
def completion() -> None:
    found = client.generate(PROMPT, max_new_tokens=20)
    assert isinstance(found.generated_text, str)
    assert found.details.generated_tokens == len(found.details.tokens)


@check("chat")
def chat() -> None:
    found = chats.chat([{"role": "user", "content": PROMPT}], max_tokens=12)
    assert found.choices[0].message.role == "assistant"


@check("stream")
def stream() -> None:
    whole = client.generate(PROMPT, max_new_tokens=20)
    events = list(client.generate_stream(PROMPT, max_new_tokens=20))
    text = "".join(event.token.text for event in events if not event.token.special)
    assert text == whole.generated_text
    assert events[-1].generated_text == whole.generated_text
    assert [e.token.id for e in events if not e.token.special] == [
        t.id for t in whole.details.tokens if not t.special
    ]
    pieces = list(chats.chat([{"role": "user", "content": PROMPT}], max_tokens=12, stream=True))
    assert pieces


@check("stop")
def stop() -> None:
    free = client.generate(PROMPT, max_new_tokens=30).generated_text
    word = free.split()[1]
    found = client.generate(PROMPT, max_new_tokens=30, stop_sequences=[word])
    assert found.generated_text.startswith(free.partition(word)[0])
    assert found.details.finish_reason.value == "stop_sequence"


@check("typed")
def typed() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    grammar = Grammar(type=GrammarType.Json, value=schema)
    found = client.generate(PROMPT, max_new_tokens=40, grammar=grammar)
    assert isinstance(json.loads(found.generated_text)["age"], int)


@check("20 at once")
def twenty() -> None:
    found = at_once(lambda i: client.generate(f"Number {i}", max_new_tokens=8).generated_text)
    assert len(found) == 20


@check("400")
def bad_request() -> None:
    raises(errors.ValidationError, lambda: client.generate(PROMPT, max_new_tokens=100_000))


@check("401")
def wrong_key() -> None:
    error = raises(Exception, lambda: _client(WRONG_KEY).generate(PROMPT, max_new_tokens=8))
    assert "API key" in str(error), error


@check("402")
def no_credits() -> None:
    error = raises(Exception, lambda: _client(POOR_KEY).generate(PROMPT, max_new_tokens=8))
    assert "credits" in str(error), error


@check("429")
def too_many() -> None:
    raises(
        errors.RateLimitExceededError, lambda: _client(BUSY_KEY, BUSY_URL).generate(PROMPT, max_new_tokens=8)
    )


@check("gradio-chat-lesson: client.generate(prompt, max_new_tokens=256)")
def lesson_generate() -> None:
    assert isinstance(client.generate(PROMPT, max_new_tokens=256).generated_text, str)


@check("gradio-chat-lesson: stop sequences keep the model from speaking for the user")
def lesson_stop() -> None:
    prompt = format_chat_prompt("And why is that?", [(PROMPT, "Both.")], "Be brief.")
    found = client.generate(prompt, max_new_tokens=64, stop_sequences=["\nUser:", "<|endoftext|>"])
    assert "\nUser:" not in found.generated_text.removesuffix("\nUser:")


@check("gradio-chat-lesson: generate_stream, token by token")
def lesson_stream() -> None:
    prompt = format_chat_prompt("Which animals live in the savanna?", [], "You are a helpful assistant.")
    acc_text = ""
    for idx, response in enumerate(
        client.generate_stream(
            prompt, max_new_tokens=64, stop_sequences=["\nUser:", "<|endoftext|>"], temperature=0.7
        )
    ):
        text_token = response.token.text
        if response.details:  # the lesson's app ends here, without this event's text
            break
        if idx == 0 and text_token.startswith(" "):
            text_token = text_token[1:]
        acc_text += text_token
    assert response.details
    assert acc_text.strip() == response.generated_text.strip()


main()
