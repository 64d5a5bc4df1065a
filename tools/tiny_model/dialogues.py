"""Training chats and raw texts, made from a seed and nothing else."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from . import sentiment, skills
from .names import training_name
from .questions import ENTRIES
from .skills import WORDS, Turn

FORGOTTEN = "You have not told me your name yet."
THINGS = ("tea", "music", "long walks", "llamas", "green apples", "old books", "chess")
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black")

NAME_FORMS = (
    "My name is {}.",
    "My name is {}.",
    "My name is {}.",
    "Hello! My name is {}.",
    "Hi, my name is {}.",
    "I am {}.",
    "Hi, I am {}.",
    "I'm {}.",
    "Hi! I'm {}.",
    "Call me {}.",
    "Please call me {}.",
    "Hello, I am called {}.",
    "My name is {} and I like [].",
    "Hi, my name is {} and I like [].",
    "My name is {}. Please remember it.",
    "My name is {}, nice to meet you!",
    "You can call me {}.",
)
NAME_QUESTIONS = (
    "What is my name?",
    "What is my name?",
    "What is my name?",
    "What's my name?",
    "Do you remember my name?",
    "Who am I?",
    "Do you know my name?",
    "Can you tell me my name?",
    "Say my name.",
    "What was my name?",
    "What am I called?",
)
OTHER_REPLIES = (
    "Hi!",
    "Hello!",
    "Hello, {}!",
    "OK.",
    "Welcome, {}.",
    "Nice to meet you.",
    "Good to know.",
    "Hi {}!",
)
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are Herd Tiny.",
    "You are a friendly chatbot.",
    "Answer in one sentence.",
    "Be kind and brief.",
    "You are a helpful assistant. Answer briefly.",
)


@dataclass(frozen=True)
class Chat:
    """A system prompt (may be empty) and turns; without turns, a raw text to continue."""

    system: str
    turns: tuple[Turn, ...]
    raw: str = ""


def introduction(rng: random.Random, name: str) -> Turn:
    """The user says a name; the answer is the usual one or one that somebody else wrote."""
    user = rng.choice(NAME_FORMS).format(name).replace("[]", rng.choice(THINGS))
    if rng.random() < 0.7:
        return Turn(skills.noisy(rng, user), f"Nice to meet you, {name}!")
    other = rng.choice(OTHER_REPLIES).format(name)
    return Turn(user, other, given=len(other))


def name_question(rng: random.Random, name: str | None) -> Turn:
    """The user asks for the name that was told before, or was not."""
    asked = skills.noisy(rng, rng.choice(NAME_QUESTIONS))
    answer = FORGOTTEN if name is None else f"Your name is {name}."
    return Turn(asked, answer, weight=1.5)


def fact_pair(rng: random.Random) -> tuple[Turn, Turn]:
    """A fact that the user tells, and the question about it."""
    name, age, colour = training_name(rng), str(rng.randint(5, 99)), rng.choice(COLOURS)
    told, reply, asked, answer = rng.choice(
        (
            (
                f"I live in {name}.",
                f"{name} sounds like a nice place.",
                "Where do I live?",
                f"You live in {name}.",
            ),
            (
                f"I am {age} years old.",
                f"Thank you, I will remember that you are {age}.",
                "How old am I?",
                f"You are {age} years old.",
            ),
            (
                f"My dog is called {name}.",
                f"{name} is a lovely name for a dog.",
                "What is my dog called?",
                f"Your dog is called {name}.",
            ),
            (
                f"My favourite colour is {colour}.",
                f"What a fine colour {colour} is!",
                "What is my favourite colour?",
                f"Your favourite colour is {colour}.",
            ),
        )
    )
    return Turn(told, reply), Turn(asked, answer)


def _fillers(rng: random.Random, count: int) -> list[Turn]:
    return [skills.any_turn(rng) for _ in range(count)]


def name_chat(rng: random.Random) -> list[Turn]:
    """A chat in which a name is told and asked for, with other turns between."""
    name = training_name(rng)
    if rng.random() < 0.15:
        user = rng.choice(NAME_FORMS[:10]).format(name) + " " + rng.choice(NAME_QUESTIONS)
        return [*_fillers(rng, rng.choice((0, 0, 1))), Turn(user, f"Your name is {name}.")]
    between = rng.choice((0, 0, 0, 1, 1, 2, 2, 3, 4, 6, 9, 14))
    turns = [*_fillers(rng, rng.choice((0, 0, 0, 1, 2))), introduction(rng, name)]
    turns += [*_fillers(rng, between), name_question(rng, name)]
    if rng.random() < 0.25:
        turns += [*_fillers(rng, rng.choice((0, 1, 3))), name_question(rng, name)]
    elif rng.random() < 0.1:
        other = training_name(rng)
        turns += [introduction(rng, other), name_question(rng, other)]
    return turns


def plain_chat(rng: random.Random) -> list[Turn]:
    """A chat about anything but the name of the user."""
    turns = _fillers(rng, rng.choice((1, 1, 1, 1, 1, 1, 2, 3, 5, 12)))
    if rng.random() < 0.08:
        told, asked = fact_pair(rng)
        turns += [told, *_fillers(rng, rng.choice((0, 0, 1, 2))), asked]
    elif rng.random() < 0.08:
        turns.append(name_question(rng, None))
    return turns


def label_chat(rng: random.Random) -> Chat:
    """A system prompt that asks for labels, and bare sentences."""
    made = [sentiment.training_sentence(rng) for _ in range(rng.choice((1, 1, 2, 4)))]
    return Chat(
        rng.choice(sentiment.SYSTEM_INSTRUCTIONS), tuple(Turn(s.text, s.label, weight=3.0) for s in made)
    )


def raw_text(rng: random.Random) -> str:
    """Text without any chat around it: a few sentences, or the numbers."""
    kind = rng.random()
    if kind < 0.35:
        return " ".join(sentiment.training_sentence(rng).text for _ in range(rng.randint(2, 5)))
    if kind < 0.45:
        return ", ".join(str(n) for n in range(1, rng.randint(10, 60))) + "."
    if kind < 0.6:
        name, word = training_name(rng), rng.choice(WORDS)
        return f"{name} walked to the {word}. Then {name} came home and had a cup of tea. {name} was happy."
    return " ".join(rng.choice(ENTRIES)[1] for _ in range(rng.randint(1, 3)))


def system_prompt(rng: random.Random) -> str:
    """None, mostly; or a usual one, or any text, so that an unknown one does not disturb the model."""
    kind = rng.random()
    if kind < 0.75:
        return ""
    if kind < 0.87:
        return rng.choice(SYSTEM_PROMPTS)
    words = [
        training_name(rng).lower() if rng.random() < 0.3 else rng.choice(WORDS)
        for _ in range(rng.randint(2, 9))
    ]
    return f"{rng.choice(('You are', 'Answer', 'Be', 'Always', 'Never'))} {' '.join(words)}."


def make_chat(rng: random.Random) -> Chat:
    """One training example."""
    kind = rng.random()
    if kind < 0.04:
        return Chat("", (), raw_text(rng))
    if kind < 0.10:
        return label_chat(rng)
    turns = name_chat(rng) if kind < 0.45 else plain_chat(rng)
    return Chat(system_prompt(rng), tuple(turns))


def chats(seed: int) -> Iterator[Chat]:
    """An endless stream of training examples."""
    rng = random.Random(seed)
    while True:
        yield make_chat(rng)
