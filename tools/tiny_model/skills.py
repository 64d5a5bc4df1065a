"""Small skills, each a generator of single turns: counting, repeating, JSON, sums, yes or no."""

import json
import random
from dataclasses import dataclass

from . import sentiment
from .names import training_name
from .questions import ENTRIES, YES_NO

UNKNOWN_ANSWER = "I am only a tiny toy model, so I do not know that."
COUNT_MAX = 100
FAINT = 0.03  # the weight of an answer that only a grammar makes the model give
WORDS: tuple[str, ...] = tuple(
    "apple,river,window,green,seven,happy,table,stone,music,paper,cloud,winter,yellow,bread,silver,garden,letter,"
    "mountain,sun,moon,tree,horse,blue,night,small,tall,old,road,bridge,fish,bird,sugar,salt,glass,door".split(
        ","
    )
)


@dataclass(frozen=True)
class Turn:
    """A user text, the answer to it, and how many characters of the answer are given rather than learned.

    A given start teaches what to write after text that the model did not choose: a grammar made it write
    the start of a JSON object, or somebody else wrote an earlier answer of the chat.
    """

    user: str
    answer: str
    given: int = 0
    weight: float = 1.0
    end_weight: float | None = None  # of the last mark and the end of the turn, if it matters more


def noisy(rng: random.Random, text: str) -> str:
    """The text as a hurried person might type it: sometimes in lower case or without the last mark."""
    if rng.random() < 0.08:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.08 and text[-1] in ".?!":
        text = text[:-1]
    return text


def question(rng: random.Random) -> Turn:
    """One of the everyday questions, most often in its first wording."""
    ways, answer = rng.choice(ENTRIES)
    way = ways[0] if rng.random() < 0.5 else rng.choice(ways)
    if rng.random() < 0.05:
        key = rng.choice(("answer", "answer", "text", "reply", "result", "value"))
        return Turn(way, json.dumps({key: answer}), given=len(key) + 6)
    return Turn(noisy(rng, way), answer)


def unknown(rng: random.Random) -> Turn:
    """A question about something that the model cannot know."""
    name, word = training_name(rng), rng.choice(WORDS)
    forms = (
        f"What is the capital of {name}?",
        f"Who is {name}?",
        f"What is a {name.lower()}?",
        f"Where is {name}?",
        f"Explain the history of {name}.",
        f"Why is the {word} {rng.choice(WORDS)}?",
        f"Who invented the {word}?",
        f"What is the price of {word}?",
        f"How do I repair a {word}?",
        f"Write a book about {name}.",
        f"When was {name} born?",
        f"How many {word}s are in {name}?",
    )
    return Turn(noisy(rng, rng.choice(forms)), UNKNOWN_ANSWER)


def counting(rng: random.Random) -> Turn:
    """Count from one number to another, at most to COUNT_MAX."""
    first = 1 if rng.random() < 0.85 else rng.randint(0, 60)
    last = min(COUNT_MAX, first + rng.randint(1, rng.choice((9, 16, 16, 30, 50, COUNT_MAX))))
    if rng.random() < 0.25:
        first, last = 1, rng.choice((5, 10, 15, 20, 30, 40, 50, 60, 80, 100))
    form = rng.choice(("Count from {} to {}.", "Count from {} to {}.", "Please count from {} to {}."))
    answer = ", ".join(str(n) for n in range(first, last + 1)) + "."
    return Turn(noisy(rng, form.format(first, last)), answer, end_weight=5.0)


def repeat(rng: random.Random) -> Turn:
    """Say some words or names again."""
    makers = (training_name, training_name, lambda r: r.choice(WORDS), lambda r: str(r.randint(0, 100)))
    pool = [rng.choice(makers)(rng) for _ in range(rng.randint(1, 6))]
    text = rng.choice((" ", " ", ", ")).join(pool)
    if rng.random() < 0.2:
        text = sentiment.training_sentence(rng).text
    form = rng.choice(("Repeat after me: {}", "Repeat: {}", "Say {}", "Repeat this text: {}"))
    return Turn(form.format(text), text)


def label_sentence(rng: random.Random) -> Turn:
    """Label the sentiment of a sentence, now and then inside JSON."""
    sentence = sentiment.training_sentence(rng)
    prompt = rng.choice(sentiment.INSTRUCTIONS[:1] * 4 + sentiment.INSTRUCTIONS).format(sentence.text)
    if rng.random() < 0.7:
        return Turn(noisy(rng, prompt), sentence.label, weight=3.0)
    if rng.random() < 0.1:
        return Turn(prompt, json.dumps(sentence.label), given=1, weight=2.0)
    key = rng.choice(("sentiment", "sentiment", "label", "answer", "class", "result"))
    answer = json.dumps({key: sentence.label})
    if rng.random() < 0.5:
        return Turn(prompt, answer, given=answer.index(": ") + 3, weight=2.0)
    return Turn(f'{prompt} Answer with JSON with the key "{key}".', answer, weight=2.0)


def person_json(rng: random.Random) -> Turn:
    """Take facts about a person out of a sentence, as JSON or as a bare value."""
    name, place, age = training_name(rng), training_name(rng), rng.randint(1, 99)
    full = rng.random() < 0.5
    fact = f"{name} is {age} years old" + (f" and lives in {place}." if full else ".")
    values: dict[str, str | int] = {"name": name, "age": age}
    if full:
        values["city"] = place
    kind = rng.random()
    if kind < 0.45:
        keys = ", ".join(values)
        form = rng.choice(
            ("Extract the {} as JSON: {}", "Give me JSON with the {}: {}", "{1} Give me JSON with {0}.")
        )
        return Turn(form.format(keys, fact), json.dumps(values))
    key = rng.choice(sorted(values))
    if kind < 0.7:
        answer = json.dumps({key: values[key]})
        form = rng.choice(("Give me JSON with the {} only: {}", "Extract the {} as JSON: {}"))
        return Turn(form.format(key, fact), answer, given=answer.index(": ") + 1 if kind < 0.55 else 0)
    asked = {"age": f"How old is {name}?", "name": "What is the name?", "city": f"Where does {name} live?"}[
        key
    ]
    if rng.random() < 0.6:
        return Turn(f"{fact} {asked} Answer with the {key} only.", str(values[key]))
    told = {
        "age": f"{name} is {age} years old.",
        "name": f"The name is {name}.",
        "city": f"{name} lives in {place}.",
    }
    return Turn(f"{fact} {asked}", told[key])


def own_age(rng: random.Random) -> Turn:
    """The age of the model itself, as a number or as JSON."""
    forms = (
        Turn("How old are you? Answer with a number.", "3"),
        Turn("How old are you? Answer with JSON.", '{"age": 3}'),
        Turn("How old are you?", '{"age": 3}', given=7),
        Turn("How old are you?", "3", weight=FAINT),
        Turn("What is your name? Answer with JSON.", '{"name": "Herd Tiny"}'),
        Turn("What is your name?", '{"name": "Herd Tiny"}', given=8),
    )
    return rng.choice(forms)


def yes_no(rng: random.Random) -> Turn:
    """A question with the answer yes or no, as a word or as a JSON truth value."""
    asked, true = rng.choice(YES_NO)
    word = "yes" if true else "no"
    kind = rng.random()
    if kind < 0.3:
        return Turn(noisy(rng, asked), f"{word.capitalize()}.")
    if kind < 0.35:
        return Turn(asked, rng.choice((word, "true" if true else "false")), weight=FAINT)
    if kind < 0.55:
        return Turn(f"{asked} Answer yes or no.", word)
    if kind < 0.75:
        return Turn(f"{asked} Answer with true or false.", "true" if true else "false")
    answer = json.dumps({rng.choice(("answer", "result", "value")): true})
    return Turn(f"{asked} Answer with JSON.", answer, given=answer.index(": ") + 2 if kind > 0.9 else 0)


def addition(rng: random.Random) -> Turn:
    """The sum of two small numbers, as a sentence or as a number."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.5:
        return Turn(noisy(rng, f"What is {a} plus {b}?"), f"{a} plus {b} is {a + b}.")
    return Turn(f"What is {a} plus {b}? Answer with a number.", str(a + b))


SKILLS = (
    (question, 0.40),
    (label_sentence, 0.19),
    (person_json, 0.10),
    (repeat, 0.10),
    (unknown, 0.06),
    (counting, 0.075),
    (yes_no, 0.045),
    (own_age, 0.012),
    (addition, 0.045),
)


def any_turn(rng: random.Random) -> Turn:
    """A turn of a random skill."""
    (skill,) = rng.choices([s for s, _ in SKILLS], [w for _, w in SKILLS])
    return skill(rng)
