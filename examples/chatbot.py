"""A bot that sits in a chat room and answers whoever speaks to it by its name, until it is told to stop.

    python examples/room.py &
    python examples/chatbot.py ws://127.0.0.1:8765 --name Llama
    python examples/room.py --join ann          # "Llama, what is a chatbot?" · "Llama, go to sleep"

Needs `pip install '.[examples]'`, and HERDER_URL and HERDER_API_KEY in the environment. It pays for what it
says from that account: `--max-fee` bounds each answer.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from room import Said, said_of, say
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from llama_herder import AsyncChat, AsyncHerder, HerderError

GOODBYE = "go to sleep"
SYSTEM = "You are {name}, a friendly guest of a chat room. Answer in one or two sentences."


def spoken_to(name: str, said: Said) -> str | None:
    """What somebody else asks of the bot; None where it is not meant."""
    begins = said.text.strip().lower().startswith(name.lower())
    return said.text.strip()[len(name) :].lstrip(" ,:") if begins and said.name != name else None


def is_goodbye(question: str, phrase: str) -> bool:
    """Whether it shall stop."""
    return question.lower().rstrip(" .!") == phrase.lower()


async def answer(chat: AsyncChat, name: str, question: str) -> str:
    """Something to say in any case: a room does not want a traceback."""
    try:
        return (await chat.say(f"{name} says: {question}", timeout=300)).strip() or "…"
    except HerderError as error:
        print(f"no answer for {name}: {error}", file=sys.stderr, flush=True)
        return "Sorry, I cannot answer that just now."


def unreachable(error: Exception) -> Exception | None:
    """Say what keeps the bot out of the room; None where trying again may do."""
    if not isinstance(error, OSError | InvalidMessage):
        return error
    print(f"the room does not answer, trying again: {error}", file=sys.stderr, flush=True)
    return None


async def run(url: str, name: str, phrase: str, max_fee: int | None) -> None:
    """Connect, and again whenever the line breaks, until the phrase is said. What it has missed stays unanswered."""
    async with AsyncHerder() as herder:
        chat = AsyncChat(herder, system=SYSTEM.format(name=name), tokens=80, max_fee=max_fee)
        async for line in connect(url, process_exception=unreachable):
            try:
                await say(
                    line, name, f"Hello! Say “{name}, …” to ask me something, “{name}, {phrase}” to stop me."
                )
                async for message in line:
                    said = said_of(message)
                    question = spoken_to(name, said)
                    if question and is_goodbye(question, phrase):
                        await say(line, name, "Good night.")
                        return
                    if question:
                        await say(line, name, await answer(chat, said.name, question))
            except ConnectionClosed:
                print("the room is gone; looking for it again", file=sys.stderr, flush=True)


def main() -> None:
    """Talk until the phrase is said, or Ctrl-C."""
    parser = argparse.ArgumentParser(description="A bot for a chat room.")
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8765")
    parser.add_argument("--name", default="Llama")
    parser.add_argument("--goodbye", default=GOODBYE, help="the phrase that ends it")
    parser.add_argument("--max-fee", type=int, default=500, help="credits, of one answer")
    asked = parser.parse_args()
    asyncio.run(run(asked.url, asked.name, asked.goodbye, asked.max_fee))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (OSError, InvalidHandshake) as error:
        sys.exit(f"error: {error}")
