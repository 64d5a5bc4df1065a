"""An agent that reads a chat room on a schedule, asks a herd how people feel about a token, and trades on paper.

    python examples/room.py &
    python examples/sentiment_agent.py ws://127.0.0.1:8765 --book book.json --every 60

Each round: what was said since the last one; one typed question to the herd; a decision; one line of status, and the
same to the room. The book is a file, and nothing but paper: a thousand credits of play money at a price that is always
`PRICE`. Delete it to begin anew.

Needs `pip install '.[examples]'`, and HERDER_URL and HERDER_API_KEY in the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from room import Said, said_of, say
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from llama_herder import AsyncHerder, HerderError

NAME = "agent"
PRICE = 10
STEP = 5  # tokens of one trade
HISTORY_MAX = 40
LISTEN_S = 1.0  # of silence, after which all that was missed has been read
FORM = {"sentiment": ["positive", "neutral", "negative"], "confidence": ["low", "medium", "high"]}

Decision = Literal["buy", "sell", "hold"]


@dataclass(frozen=True)
class Book:
    """What the agent has, on paper, and the last message that it has read."""

    cash: int = 1_000
    tokens: int = 0
    trades: int = 0
    last_read: int = 0

    def after(self, decision: Decision) -> Book:
        """The book after a decision; what there is no money or no token for is left undone."""
        if decision == "buy" and self.cash >= STEP * PRICE:
            return replace(
                self, cash=self.cash - STEP * PRICE, tokens=self.tokens + STEP, trades=self.trades + 1
            )
        if decision == "sell" and self.tokens >= STEP:
            return replace(
                self, cash=self.cash + STEP * PRICE, tokens=self.tokens - STEP, trades=self.trades + 1
            )
        return self

    def worth(self) -> int:
        """All of it in play money."""
        return self.cash + self.tokens * PRICE


def read_book(path: Path) -> Book:
    """The book of the file, or a new one. Raises ValueError for a file that is no book."""
    if not path.exists():
        return Book()
    try:
        return Book(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no book of this agent: {error}") from None


def write_book(path: Path, book: Book) -> None:
    """Whole or not at all: a crash leaves the book before."""
    beside = path.with_suffix(path.suffix + ".new")
    beside.write_text(json.dumps(asdict(book)) + "\n", "utf-8")
    os.replace(beside, path)  # noqa: PTH105


def prompt_of(history: list[Said]) -> str:
    """The question. The model is not told of the form by itself: what is wanted stands in the prompt."""
    talk = "\n".join(f"{said.name}: {' '.join(said.text.split())[:200]}" for said in history)
    return (
        "Here is what people say in a chat room about a token:\n"
        f"{talk}\n"
        "What do they feel about it? Answer as JSON with sentiment (positive, neutral or negative) "
        "and confidence (low, medium or high)."
    )


def decide(feeling: dict[str, str]) -> Decision:
    """Buy what is liked, sell what is not, and only where the model is somewhat sure."""
    if feeling["confidence"] == "low" or feeling["sentiment"] == "neutral":
        return "hold"
    return "buy" if feeling["sentiment"] == "positive" else "sell"


async def missed(line: ClientConnection) -> list[Said]:
    """What was said since the last round: everything up to a second of silence, the newest of it."""
    found: list[Said] = []
    while len(found) < 10 * HISTORY_MAX:
        try:
            said = said_of(await asyncio.wait_for(line.recv(), LISTEN_S))
        except TimeoutError:
            break
        if said.name != NAME:
            found.append(said)
    return found


async def one_round(herder: AsyncHerder, url: str, path: Path, max_fee: int) -> str:
    """Read, ask, decide, write down, report. The line of status."""
    book = read_book(path)
    async with connect(f"{url}?after={book.last_read}") as line:
        history = await missed(line)
        if not history:
            return f"nothing new · {status(book)}"
        feeling = await herder.generate(
            prompt_of(history[-HISTORY_MAX:]), 60, output_type=FORM, max_fee=max_fee, timeout=300
        )
        decision = decide(feeling)
        book = replace(book.after(decision), last_read=history[-1].id)
        write_book(path, book)
        told = f"{feeling['sentiment']} ({feeling['confidence']}) → {decision} · {status(book)}"
        await say(line, NAME, told)
        return told


def status(book: Book) -> str:
    """What it has."""
    return f"{book.tokens} tokens, {book.cash} cash, worth {book.worth()}, {book.trades} trades"


async def run(url: str, path: Path, every_s: float, rounds: int | None, max_fee: int) -> None:
    """Round after round. One that fails (a herd or a room that is away) is reported, and the next may do."""
    async with AsyncHerder() as herder:
        done = 0
        while rounds is None or done < rounds:
            begun = asyncio.get_running_loop().time()
            try:
                print(await one_round(herder, url, path, max_fee), flush=True)
            except (HerderError, ConnectionClosed, InvalidHandshake, OSError) as error:
                print(f"no decision this time: {error}", file=sys.stderr, flush=True)
            done += 1
            if rounds is None or done < rounds:
                await asyncio.sleep(max(0.0, begun + every_s - asyncio.get_running_loop().time()))


def main() -> None:
    """Until Ctrl-C, or for so many rounds."""
    parser = argparse.ArgumentParser(description="A paper-trading agent.")
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8765")
    parser.add_argument("--book", type=Path, default=Path("book.json"))
    parser.add_argument("--every", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--rounds", type=int, help="so many, and stop")
    parser.add_argument("--max-fee", type=int, default=500, help="credits, of one question")
    asked = parser.parse_args()
    asyncio.run(run(asked.url, asked.book, asked.every, asked.rounds, asked.max_fee))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: the book is as the last round left it")
    except ValueError as error:
        sys.exit(f"error: {error}")
