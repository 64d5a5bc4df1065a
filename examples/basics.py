"""The basics on a herd: a completion, a chat, and a conversation that goes on.

    python examples/basics.py

Needs `pip install .` in a clone, and HERDER_URL and HERDER_API_KEY in the environment.
"""

from __future__ import annotations

import sys

import llama_herder
from llama_herder import HerderError, Message

HISTORY: list[Message] = [
    {"role": "system", "content": "You explain things in one short sentence."},
    {"role": "user", "content": "What is a chatbot?"},
]


def complete(text: str) -> str:
    """How a text goes on: the model reads it as it is, without a chat template."""
    result = llama_herder.run(text, 20, raw=True)
    return text + result


def continue_conversation(history: list[Message], user_prompt: str) -> str:
    """The answer to one more message. The model reads the whole history each time: it has no memory of its own."""
    history.append({"role": "user", "content": user_prompt})
    response = llama_herder.chat(history).message
    history.append(response)  # it has its role already
    return response["content"] or ""


def main() -> None:
    """One after the other."""
    print(complete("A chatbot is a computer program that"))

    history = list(HISTORY)
    response = llama_herder.chat(history).message
    print(response["content"])
    history.append(response)
    print(continue_conversation(history, "What is a llama?"))

    # The same, with the history kept for you; it also leaves the oldest turns out once they no longer fit.
    chat = llama_herder.Chat(system="You explain things in one short sentence.")
    print(chat.say("What is a chatbot?"))
    print(chat.say("What is a llama?"))
    print(f"[{len(chat.messages)} messages]", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except HerderError as error:
        sys.exit(f"error: {error}")
