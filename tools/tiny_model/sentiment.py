"""Sentences with a sentiment, and the rule that keeps some of them out of training.

Split rule. A sentence is made from a template and a combination of words (noun and
sentiment word). It is held out when
  * its template is one of HELD_OUT_TEMPLATES (training never shows that template), or
  * the CRC-32 of "template|noun|word" is divisible by 5 (training never shows that
    combination, although it shows the template, the noun and the word in others).
Every sentiment word occurs in training, with other templates and nouns.
"""

import random
import re
import zlib
from dataclasses import dataclass, replace

from .names import training_name

LABELS: tuple[str, ...] = ("positive", "negative", "neutral")

NOUNS: tuple[str, ...] = tuple(
    "film,book,hotel,room,meal,soup,cake,coffee,service,waiter,phone,laptop,camera,game,song,concert,museum,"
    "garden,park,beach,trip,flight,train,bus,car,bike,house,kitchen,chair,table,lamp,jacket,shirt,shop,website,"
    "app,course,lesson,teacher,doctor,party,match,show,story,picture,product,delivery,support,restaurant,pizza,"
    "bread,tea,city,market,school,weather,holiday,staff,food,present".split(",")
)

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "positive": tuple(
        "good,great,wonderful,excellent,amazing,fantastic,lovely,beautiful,perfect,brilliant,delightful,superb,nice,"
        "awesome,pleasant,charming,outstanding,marvellous,splendid,impressive,enjoyable,terrific".split(",")
    ),
    "negative": tuple(
        "bad,terrible,awful,horrible,poor,disappointing,boring,ugly,dreadful,useless,annoying,disgusting,nasty,"
        "unpleasant,miserable,pathetic,dirty,broken,rude,worthless,lousy,not good".split(",")
    ),
    "neutral": tuple(
        "blue,green,grey,square,round,new,old,small,large,local,usual,average,ordinary,typical,Italian,wooden,"
        "digital,public,medium,separate,regular,standard".split(",")
    ),
}

VERBS: dict[str, tuple[str, ...]] = {
    "positive": (
        "love",
        "adore",
        "really like",
        "enjoy",
        "admire",
        "am happy with",
        "am delighted with",
        "recommend",
    ),
    "negative": (
        "hate",
        "detest",
        "really dislike",
        "regret",
        "despise",
        "am angry about",
        "am disappointed by",
        "do not like",
    ),
    "neutral": (
        "looked at",
        "asked about",
        "know",
        "described",
        "drove past",
        "wrote about",
        "am waiting for",
        "noticed",
    ),
}

ADJECTIVE_TEMPLATES: tuple[str, ...] = (
    "The {noun} was {word}.",
    "The {noun} is {word}.",
    "This {noun} is {word}.",
    "It is a {word} {noun}.",
    "My {noun} looks {word}.",
    "We had a {word} {noun}.",
    "I think the {noun} is {word}.",
    "They told me that the {noun} was {word}.",
    "What a {word} {noun}!",
    "The {noun} in our street is {word}.",
    "Our {noun} was {word} yesterday.",
    "That was a {word} {noun}.",
    "{word} {noun}.",
    "It was {word}.",
    "The {noun} seems {word} to me.",
    "My brother says that your {noun} is {word}.",
    "This is {word}.",
    "Everyone said the {noun} was {word}.",
    "For me it was a {word} {noun}.",
)

VERB_TEMPLATES: tuple[str, ...] = (
    "I {word} this {noun}.",
    "I {word} the {noun}.",
    "I {word} my {noun}!",
    "Today I {word} the new {noun}.",
    "To be honest, I {word} that {noun}.",
    "As you know, I {word} your {noun}.",
    "I {word} it.",
    "My friends know that I {word} the {noun}.",
)

FACT_TEMPLATES: tuple[str, ...] = (
    "The {noun} arrived on {word}.",
    "We talked about the {noun} on {word}.",
    "The {noun} is closed on {word}.",
    "The {noun} starts on {word}.",
    "I will see the {noun} on {word}.",
    "There is a {noun} here every {word}.",
)

DAYS: tuple[str, ...] = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())

HELD_OUT_TEMPLATES: frozenset[str] = frozenset(
    (
        "My brother says that your {noun} is {word}.",
        "That was a {word} {noun}.",
        "The {noun} in our street is {word}.",
        "Everyone said the {noun} was {word}.",
        "My friends know that I {word} the {noun}.",
        "To be honest, I {word} that {noun}.",
        "I will see the {noun} on {word}.",
    )
)

INSTRUCTIONS: tuple[str, ...] = (
    "Label the sentiment of this sentence as positive, negative or neutral: {}",
    "Is this sentence positive, negative or neutral? {}",
    "Classify the sentiment of this sentence as positive, negative or neutral: {}",
    "What is the sentiment of this sentence? {}",
    'Label the sentiment as positive, negative or neutral: "{}"',
    'What is the sentiment of "{}"?',
    "Sentiment: {}",
    "{}\nIs this positive, negative or neutral?",
)

SYSTEM_INSTRUCTIONS: tuple[str, ...] = (
    "Label the sentiment of each sentence as positive, negative or neutral.",
    "You label sentences. Answer only with positive, negative or neutral.",
    "Classify the sentiment of the text. Answer with one word: positive, negative or neutral.",
)


@dataclass(frozen=True)
class Sentence:
    """One labelled sentence and where it comes from."""

    text: str
    label: str
    template: str
    held_out_combination: bool

    @property
    def held_out(self) -> bool:
        return self.held_out_combination or self.template in HELD_OUT_TEMPLATES


def _strange_words(rng: random.Random, sentence: str) -> str:
    """The sentence with a beginning or an end that says nothing and holds words that nobody knows."""
    name, strange = training_name(rng), training_name(rng).lower()
    start = sentence[0] if sentence.startswith("I ") else sentence[0].lower()
    lower, bare = start + sentence[1:], sentence.rstrip(".!")
    return rng.choice(
        (
            f"{name} said that {lower}",
            f"My {strange} thinks that {lower}",
            f"The {strange} told {name}: {sentence}",
            f"{strange.capitalize()} {strange}, {lower}",
            f"{bare} in {name}.",
            f"{bare}, {strange} {name}.",
            f"{name} {strange} that {lower}",
            f"{bare} of our {strange}.",
            f"Your {strange} knows: {sentence}",
        )
    )


def make_sentence(rng: random.Random, label: str) -> Sentence:
    """A random sentence of the given label, from either half of the split."""
    kind = rng.random()
    if label == "neutral" and kind < 0.3:
        template, word = rng.choice(FACT_TEMPLATES), rng.choice(DAYS)
    elif kind < 0.7:
        template, word = rng.choice(ADJECTIVE_TEMPLATES), rng.choice(ADJECTIVES[label])
    else:
        template, word = rng.choice(VERB_TEMPLATES), rng.choice(VERBS[label])
    noun = rng.choice(NOUNS)
    filled = template.replace("{noun}", noun).replace("{word}", word)
    filled = re.sub(r"\b([Aa]) (?=[aeioAEIO]|u(?!s))", r"\1n ", filled)
    held_out = zlib.crc32(f"{template}|{noun}|{word}".encode()) % 5 == 0 and "{noun}" in template
    return Sentence(filled[0].upper() + filled[1:], label, template, held_out)


def plain_sentence(rng: random.Random) -> Sentence:
    """A sentence that training may use, from the templates and nothing else."""
    label = rng.choice(LABELS)
    while True:
        sentence = make_sentence(rng, label)
        if not sentence.held_out:
            return sentence


def training_sentence(rng: random.Random) -> Sentence:
    """A sentence that training may use, at times with strange words around it."""
    sentence = plain_sentence(rng)
    strange = rng.random() < 0.35
    return replace(sentence, text=_strange_words(rng, sentence.text)) if strange else sentence


def held_out_sentences(seed: int, count: int) -> list[Sentence]:
    """Distinct held-out sentences, labels in turn, half with a held-out template."""
    rng = random.Random(seed)
    chosen: dict[str, Sentence] = {}
    while len(chosen) < count:
        want_template = len(chosen) % 2 == 0
        sentence = make_sentence(rng, LABELS[len(chosen) // 2 % 3])
        fits = sentence.template in HELD_OUT_TEMPLATES if want_template else sentence.held_out_combination
        if fits and (want_template or sentence.template not in HELD_OUT_TEMPLATES):
            chosen.setdefault(sentence.text, sentence)
    return list(chosen.values())
