"""What can be typed into `herder chat` beside what is said: the words that begin with a slash. Sends nothing."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

from llama_herder import Chat, Message
from llama_herder._core import one_line
from llama_herder.cli.output import UsageProblem, money

HELP = """\
/system [TEXT]   show the system prompt, or set it; /system off for none
/bid [X]         show the bid, or set it: 1.5 (times the base fee), fee 100, max 200, off
/tokens [N]      show the most tokens of an answer, or set them
/save FILE       the chat as JSON; herder chat --messages FILE goes on with it
/clear           forget what was said; the system prompt stays
/quit            the end; Ctrl-D does it too
A message that begins with a slash is written with two. A \\ at the end of a line goes on with the next.
Ctrl-C stops an answer: what it has not used is refunded."""


class End(Exception):
    """It was asked for."""


class Words:
    """The words, and the chat that they change. `saved` is the file that the chat is from."""

    def __init__(self, chat: Chat, saved: str | None = None) -> None:
        self._chat = chat
        self._saved = {Path(saved)} if saved else set[Path]()

    def obey(self, line: str) -> str:
        """What to say of it. Raises UsageProblem, End."""
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word in {"/quit", "/exit", "/bye"}:
            raise End
        known = {
            "/help": lambda: HELP,
            "/system": lambda: self._system(rest),
            "/bid": lambda: self._bid(rest),
            "/tokens": lambda: self._tokens(rest),
            "/save": lambda: self._save(rest),
            "/clear": self._clear,
        }
        if word not in known:
            raise UsageProblem(
                f"there is no {one_line(word, 40)}: /help lists what there is, and a message that begins with a "
                "slash is written with two"
            )
        return known[word]()

    def offered(self) -> dict[str, float]:
        """The bid: what was offered, and the ceiling."""
        options = self._chat.options
        found = (
            ("bid", options.get("multiplier")),
            ("bid", options.get("fee")),
            ("max", options.get("max_fee")),
        )
        return {name: value for name, value in found if value is not None}

    def _system(self, text: str) -> str:
        if text:
            self._chat.system = None if text == "off" else text
        said = self._chat.system
        return "no system prompt" if said is None else f"system prompt: {one_line(said)}"

    def _bid(self, text: str) -> str:
        options = self._chat.options
        kind, _, amount = text.partition(" ")
        if text == "off":
            options.update({"multiplier": None, "fee": None, "max_fee": None})
        elif kind == "max" and amount:
            options["max_fee"] = _whole(amount)
        elif kind == "fee" and amount:
            options.update({"multiplier": None, "fee": _whole(amount)})
        elif text:
            options.update({"multiplier": _factor(text), "fee": None})
        if options.get("multiplier") is not None:
            said = f"bid: ×{options['multiplier']:g} of the base fee"
        elif (fee := options.get("fee")) is not None:
            said = f"bid: {money(fee)} credits a turn"
        else:
            said = "no bid: the automatic price"
        most = options.get("max_fee")
        return said if most is None else f"{said}, at most {money(most)} credits"

    def _tokens(self, text: str) -> str:
        if text:
            found = _whole(text)
            if found < 1:
                raise UsageProblem("an answer has 1 token at the least")
            self._chat.tokens = found
        return f"at most {money(self._chat.tokens)} tokens an answer"

    def _clear(self) -> str:
        self._chat.clear()
        return "a new chat" if self._chat.system is None else "a new chat; the system prompt stays"

    def _save(self, name: str) -> str:
        """Never over a file that is not this chat's."""
        if not name:
            raise UsageProblem("/save needs the name of a file")
        path, chat = Path(name).expanduser(), self._chat
        first: list[Message] = [] if chat.system is None else [{"role": "system", "content": chat.system}]
        turns = [*first, *chat.messages]
        try:
            with path.open("w" if path in self._saved else "x", encoding="utf-8") as file:
                json.dump(turns, file, ensure_ascii=False, indent=2)
                file.write("\n")
        except FileExistsError:
            raise UsageProblem(f"{one_line(name)} is there already: take another name") from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "not a file name"
            raise UsageProblem(f"cannot write {one_line(name)!r}: {why.lower()}") from None
        self._saved.add(path)
        many = f"{money(len(turns))} message{'' if len(turns) == 1 else 's'}"
        return f"{many} saved; herder chat --messages {shlex.quote(one_line(name))} goes on from there"


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageProblem(f"{one_line(text, 40)!r} is no whole number") from None


def _factor(text: str) -> float:
    try:
        factor = float(text.removeprefix("×").removeprefix("x"))
        if not math.isfinite(factor):
            raise ValueError("no price is that often the base fee")
        return factor
    except ValueError:
        raise UsageProblem(
            f"{one_line(text, 40)!r} is no bid: 1.5 is times the base fee, `fee 100` a whole fee, `max 200` a "
            "ceiling, `off` none"
        ) from None
