"""Run the GGUF through llama.cpp, greedily and with its own chat template, and print what it can do.

Needs llama-cpp-python only. Exits with 1 if a figure is below its requirement.
"""

import argparse
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp

from . import CONTEXT_LENGTH, MODEL_NAME, SEED
from .names import training_name, unseen_name
from .questions import ENTRIES
from .sentiment import HELD_OUT_TEMPLATES, INSTRUCTIONS, held_out_sentences

MODEL_PATH = Path(__file__).resolve().parents[2] / "herder" / "models" / f"{MODEL_NAME}.gguf"
MAX_BYTES = 6_000_000
MUST_ANSWER = ("What is a chatbot?", "What is the meaning of life?", "Write a story in 10 words or less.")
EVALUATION_SEED = 7
ROUND_TRIP = (
    "Ünïcode, 漢字, 🦙🦙 and\ttabs\n\nlines",
    "  two  spaces  ",
    'a "quoted" \\ text 1234567890',
    "\x00\x7f",
)

Message = Any  # {"role": ..., "content": ...}, as llama-cpp-python types it in detail
Check = tuple[str, int, int, int]  # what, how many are right, how many must be, of how many


class Chatter:
    """The model behind the chat template, decoded greedily."""

    def __init__(self, path: Path) -> None:
        self.llama = llama_cpp.Llama(
            str(path), n_ctx=CONTEXT_LENGTH, n_threads=1, n_threads_batch=1, verbose=False
        )

    def reply(self, messages: Sequence[Message], max_tokens: int = 500) -> tuple[str, bool]:
        """The answer, and whether the model stopped by itself."""
        made: Any = self.llama.create_chat_completion(
            messages=list(messages),
            temperature=0.0,
            repeat_penalty=1.0,
            max_tokens=max_tokens,
        )
        choice = made["choices"][0]
        return str(choice["message"]["content"]), choice["finish_reason"] == "stop"

    def right(self, asked: str, answer: str, before: list[Message] | None = None) -> bool:
        """Whether the model gives exactly this answer and stops."""
        given, stopped = self.reply([*(before or []), {"role": "user", "content": asked}])
        good = stopped and given == answer
        if not good:
            print(f"    wrong: {asked!r} -> {given!r}" + ("" if stopped else " (did not stop)"))
        return good


def check_questions(chatter: Chatter) -> list[Check]:
    """Every question in its first wording; right means the exact answer and a stop."""
    right = {ways[0] for ways, answer in ENTRIES if chatter.right(ways[0], answer)}
    must = sum(asked in right for asked in MUST_ANSWER)
    return [("everyday questions", len(right), 50, len(ENTRIES)), ("must-answer questions", must, 3, 3)]


def check_paraphrases(chatter: Chatter) -> list[Check]:
    """Every other wording."""
    pairs = [(way, answer) for ways, answer in ENTRIES for way in ways[1:]]
    return [("other wordings", sum(chatter.right(*pair) for pair in pairs), 0, len(pairs))]


def _recall(chatter: Chatter, rng: random.Random, make: Callable[[random.Random], str], count: int) -> int:
    """Tell a name, talk about something else for some turns, ask for the name."""
    right = 0
    for number in range(count):
        name = make(rng)
        told = rng.choice(("My name is {}.", "Hi, I am {}.", "Hello! My name is {}.")).format(name)
        history: list[Message] = []
        for asked in (told, *(rng.choice(ENTRIES)[0][0] for _ in range(number % 4))):
            history.append({"role": "user", "content": asked})
            history.append({"role": "assistant", "content": chatter.reply(history)[0]})
        right += chatter.right("What is my name?", f"Your name is {name}.", history)
    return right


def check_recall(chatter: Chatter) -> list[Check]:
    """Names of both halves of the split, with 0 to 3 turns between telling and asking."""
    rng = random.Random(EVALUATION_SEED)
    seen = _recall(chatter, rng, training_name, 50)
    unseen = _recall(chatter, rng, unseen_name, 100)
    return [("recall of names from training", seen, 45, 50), ("recall of names never seen", unseen, 80, 100)]


def check_sentiment(chatter: Chatter) -> list[Check]:
    """200 held-out sentences, half by template and half by combination of words."""
    by_template = by_combination = 0
    for sentence in held_out_sentences(EVALUATION_SEED, 200):
        good = chatter.right(INSTRUCTIONS[0].format(sentence.text), sentence.label)
        by_template += good and sentence.template in HELD_OUT_TEMPLATES
        by_combination += good and sentence.template not in HELD_OUT_TEMPLATES
    return [
        ("held-out sentences labelled", by_template + by_combination, 170, 200),
        ("  of these with a held-out template", by_template, 0, 100),
        ("  of these with a held-out combination", by_combination, 0, 100),
    ]


def check_counting(chatter: Chatter) -> list[Check]:
    """Count from 1 to N, up to 100."""
    ends = (3, 5, 7, 10, 12, 20, 25, 30, 40, 50, 60, 64, 75, 80, 90, 100)
    right = sum(
        chatter.right(f"Count from 1 to {end}.", ", ".join(str(n) for n in range(1, end + 1)) + ".")
        for end in ends
    )
    return [("counting from 1 to N", right, 0, len(ends))]


def check_json(chatter: Chatter) -> list[Check]:
    """Take name and age of a person never seen out of a sentence, and repeat words."""
    rng = random.Random(EVALUATION_SEED)
    facts = [(unseen_name(rng), rng.randint(1, 99)) for _ in range(40)]
    extracted = sum(
        chatter.right(
            f"Extract the name, age as JSON: {name} is {age} years old.",
            json.dumps({"name": name, "age": age}),
        )
        for name, age in facts
    )
    repeated = sum(chatter.right(f"Repeat after me: {name} {age}", f"{name} {age}") for name, age in facts)
    return [("JSON extracted", extracted, 0, 40), ("texts repeated", repeated, 0, 40)]


def check_tokenizer(chatter: Chatter) -> list[Check]:
    """Any UTF-8 text survives encoding and decoding."""
    llama = chatter.llama
    same = sum(
        llama.detokenize(llama.tokenize(text.encode(), add_bos=False)) == text.encode() for text in ROUND_TRIP
    )
    return [("texts that survive the tokenizer", same, len(ROUND_TRIP), len(ROUND_TRIP))]


CHECKS = (
    check_tokenizer,
    check_questions,
    check_paraphrases,
    check_recall,
    check_sentiment,
    check_counting,
    check_json,
)


def evaluate(path: Path) -> list[Check]:
    """All figures."""
    chatter = Chatter(path)
    checks: list[Check] = []
    for check in CHECKS:
        began = time.monotonic()
        found = check(chatter)
        for what, right, required, total in found:
            print(
                f"{what}: {right} of {total} (required: {required}), {time.monotonic() - began:.0f} s",
                flush=True,
            )
        checks += found
    return checks


def record(path: Path, checks: list[Check]) -> None:
    """Write the facts about the file next to it."""
    content = path.read_bytes()
    facts = {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "seed": SEED,
        "context_length": CONTEXT_LENGTH,
        "figures": {what.strip(): f"{right} of {total}" for what, right, _, total in checks},
    }
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")


def passed(path: Path, checks: list[Check]) -> bool:
    """Whether every requirement is met."""
    return path.stat().st_size <= MAX_BYTES and all(right >= required for _, right, required, _ in checks)


def main() -> int:
    """Evaluate a file; exit code 1 if it is below a requirement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_PATH)
    parser.add_argument("--record", action="store_true", help="write the figures to the JSON file next to it")
    options = parser.parse_args()
    checks = evaluate(options.model)
    if options.record:
        record(options.model, checks)
    good = passed(options.model, checks)
    print("all requirements met" if good else "BELOW A REQUIREMENT")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
