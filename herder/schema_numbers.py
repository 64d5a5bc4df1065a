"""Numbers between bounds, written without an exponent: the shortest one, and the shortest end of one begun. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

DECIMALS_MOST = 8
"""How many digits after the point are tried: more than a bound may have."""
_CHARACTERS_MOST = 28


@dataclass(frozen=True)
class Number:
    """A number between two bounds, either of which may be excluded; written without an exponent."""

    low: Fraction
    high: Fraction
    integer: bool
    above: bool = False  # the low bound itself is excluded
    below: bool = False  # the high one


@lru_cache(maxsize=8_192)
def shortest_number(node: Number, begun: bytes) -> bytes | None:
    """The fewest characters that make what was begun (perhaps nothing) a number within the bounds; None: none do."""
    if not begun:
        plain = _magnitude(node, b"", b"")
        if plain is not None and len(plain) <= 2:
            return plain
        negative = _magnitude(node, b"-", b"")
        found = [plain, None if negative is None else b"-" + negative]
        return min((each for each in found if each is not None), key=len, default=None)
    sign = b"-" if begun.startswith(b"-") else b""
    return _magnitude(node, sign, begun[len(sign) :])


def _magnitude(node: Number, sign: bytes, digits: bytes) -> bytes | None:
    """The same without the sign: of a negative number the bounds change sides."""
    low, high, above, below = node.low, node.high, node.above, node.below
    if sign:
        low, high, above, below = -high, -low, below, above
        if low <= 0 and not (node.integer and digits == b"0"):
            low, above = Fraction(0), True  # -0 is nobody's number
    low = max(low, Fraction(0))
    if low == 0 and not sign and node.low < 0:
        above = False
    bounds = (low, high, above, below)
    # 1. Between two whole numbers llguidance wants as many digits after the point as the bounds have, except at the
    # upper one.
    upper = bool(digits) and not digits.endswith(b".") and Fraction(digits.decode()) == high
    if not node.integer and not upper and low.__floor__() == high.__floor__():
        least = max(_decimals(low), _decimals(high))
        for ended in (False, True):
            if (found := _first(False, digits, bounds, ended=ended, least=least)) is not None:
                return found
    # 2. As llguidance ends a negative number: with a 0 after the point only at a bound.
    if sign and (found := _first(node.integer, digits, bounds, ended=False)) is not None:
        return found
    # 3. Any.
    return _first(node.integer, digits, bounds, ended=True)


def _decimals(bound: Fraction) -> int:
    """How many digits after the point it has."""
    return next(places for places in range(DECIMALS_MOST + 1) if (bound * 10**places).denominator == 1)


def _first(
    integer: bool,
    digits: bytes,
    bounds: tuple[Fraction, Fraction, bool, bool],
    *,
    ended: bool,
    least: int = 0,
) -> bytes | None:
    whole, point, decimals = digits.partition(b".")
    for extra in range(0 if digits and not digits.endswith(b".") else 1, _CHARACTERS_MOST):
        for more, places in _shapes(integer, whole, bool(point), extra):
            if len(decimals) + max(places, 0) < least:
                continue
            found = _between(whole, decimals, more, places, bounds, ended=ended)
            if found is not None:
                return found[len(digits) :]
    return None


def _shapes(integer: bool, whole: bytes, point: bool, extra: int) -> Iterable[tuple[int, int]]:
    """Ways to spend `extra` characters: (more digits before the point, digits after it that are new)."""
    if point:
        return [(0, extra)] if extra <= DECIMALS_MOST else []
    shapes = [(extra, -1)] if not (whole == b"0" and extra) else []
    if not integer:
        most = 0 if whole == b"0" else extra
        shapes += [
            (more, extra - more - 1) for more in range(most + 1) if 1 <= extra - more - 1 <= DECIMALS_MOST
        ]
    return [shape for shape in shapes if whole or shape[0]]


def _between(
    whole: bytes,
    decimals: bytes,
    more: int,
    places: int,
    bounds: tuple[Fraction, Fraction, bool, bool],
    *,
    ended: bool,
) -> bytes | None:
    """The least number of this shape within the bounds, written out; None where there is none.

    Not `ended`: a 0 after the point is not the last digit.
    """
    low, high, above, below = bounds
    after = len(decimals) + max(places, 0)
    unit = 10**after
    # What can be reached from what is there: `first` to `last`, in units of the last place.
    first = int(whole + decimals or b"0") * 10 ** (more + max(places, 0))
    last = first + 10 ** (more + max(places, 0)) - 1
    if not whole and more > 1:
        first = 10 ** (more - 1) * unit  # no leading zero
    wanted = low * unit
    value = max(first, -(-wanted.numerator // wanted.denominator))
    if above and value == wanted:
        value += 1
    if after and not ended and value % 10 == 0:
        value += 1
    if value > last or value > high * unit or (below and value == high * unit):
        return None
    text = str(value).zfill(after + 1).encode()
    return text[: len(text) - after] + b"." + text[len(text) - after :] if after else text
