"""Names for people and places: a few real ones and an endless supply of made-up ones.

Split rule: a name whose CRC-32 is divisible by 5 is never used in training; it is one
of the "unseen" names of the evaluation.
"""

import random
import zlib

REAL_NAMES: tuple[str, ...] = tuple(
    "Ada Alan Alice Amir Anna Ben Bob Carla Carlos Chen Clara Daniel David Diego Elena Emma Eva Fatima Felix "
    "Finn Frida George Grace Greta Hanna Hugo Ida Igor Ines Ivan Jack James Jane Jonas Julia Karl Kofi "
    "Laila Lars Lena Leo Linus Lucia Maria Marta Max Mei Mia Mila Mohamed Nadia Nina Noah Nora Olga Oscar "
    "Otto Paul Peter Priya Rafael Rosa Ruth Sam Sara Sofia Sven Tara Theo Tom Uma Vera Victor Walter Yara "
    "Yuki Zoe Zorvak".split()
)

_ONSETS = (
    "b c d f g h j k l m n p q r s t v w x y z br bl ch cl cr dr fl fr gl gr kl kr ph pl pr qu sh sk sl sn "
    "sp st th tr tw vl wh zh"
).split()
_VOWELS = "a e i o u a e i o u y aa ai au ea ee ei ia ie io oa oo ou ue".split()
_CODAS = "b d f g k l m n p r s t v x z ck ff ll ld lt nd ng nk nt rd rk rn rt sh sk ss st th x".split()


def is_held_out(name: str) -> bool:
    """The split rule of names."""
    return zlib.crc32(name.encode()) % 5 == 0


def _syllables(rng: random.Random) -> str:
    parts: list[str] = []
    if rng.random() < 0.15:
        parts.append(rng.choice(_VOWELS))
    for _ in range(rng.choice((1, 2, 2, 2, 3))):
        parts.append(rng.choice(_ONSETS) + rng.choice(_VOWELS))
        if rng.random() < 0.35:
            parts.append(rng.choice(_CODAS))
    return "".join(parts)


def _letters(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 8)))


def made_up_name(rng: random.Random) -> str:
    """A made-up name of either half of the split."""
    raw = _letters(rng) if rng.random() < 0.25 else _syllables(rng)
    return raw[:11].capitalize()


def any_name(rng: random.Random) -> str:
    """A name of either half of the split, sometimes a real one."""
    return rng.choice(REAL_NAMES) if rng.random() < 0.15 else made_up_name(rng)


def training_name(rng: random.Random) -> str:
    """A name that training may use."""
    while True:
        name = any_name(rng)
        if not is_held_out(name):
            return name


def unseen_name(rng: random.Random) -> str:
    """A name that training never uses."""
    while True:
        name = any_name(rng)
        if is_held_out(name):
            return name
