"""The chain of a prompt: what two prompts have in common is found in their chains, and nothing else."""

from __future__ import annotations

import random
import re

import pytest

from herder.chains import BLOCK_BYTES, beginnings, chain_key, chain_of

KEY = chain_key(b"a secret for the tests only")
LONGEST = 500_000 // BLOCK_BYTES


def chain(text: str, account: str = "ann", *, shared: bool = False, key: bytes = KEY) -> tuple[str, ...]:
    return chain_of(key, account, text, shared=shared)


def common_bytes(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """The longest beginning that both chains name."""
    return max((int(link.partition(".")[0]) * BLOCK_BYTES for link in {*left} & {*right}), default=0)


def text_of(seed: int, length: int) -> str:
    return "".join(random.Random(seed).choices("abcdefgh ", k=length))


def test_a_short_prompt_has_none() -> None:
    assert chain("x" * (BLOCK_BYTES - 1)) == ()
    assert len(chain("x" * BLOCK_BYTES)) == 1


def test_there_are_few_of_them_and_the_longest_is_all_whole_blocks() -> None:
    sizes = [beginnings(whole) for whole in range(1, LONGEST + 1)]
    assert max(len(found) for found in sizes) <= 21
    for whole, found in enumerate(sizes, 1):
        assert (found[0], found[-1]) == (1, whole)
        assert found == sorted(set(found))


@pytest.mark.parametrize("opening", [1_000, 5_000, 60_000])
def test_what_has_a_common_opening_meets_at_half_of_it_or_more(opening: int) -> None:
    head = text_of(0, opening)
    for i in range(1, 40):
        left, right = head + text_of(i, 331 * i), head + "-" + text_of(-i, 977 * i)
        met = common_bytes(chain(left), chain(right))
        assert opening / 2 - BLOCK_BYTES < met <= opening


@pytest.mark.parametrize("new", [100, 700, 5_000])
def test_what_goes_on_meets_its_past_at_no_more_than_twice_the_new_part_before_its_end(new: int) -> None:
    for i in range(1, 60):
        past = text_of(i, 311 * i)
        met = common_bytes(chain(past), chain(past + text_of(-i, new)))
        assert met > len(past) - 2 * new - 3 * BLOCK_BYTES


def test_hashes_are_of_the_bytes_of_the_beginning_and_nothing_behind_it() -> None:
    text = "é" * BLOCK_BYTES
    whole = chain(text + "the rest")
    assert whole == chain(text + "another") == chain(text)
    assert chain("e" + text[1:]) != whole
    assert chain("\ud800" * BLOCK_BYTES)  # what no worker can read is hashed all the same


def test_accounts_have_nothing_in_common_unless_both_allow_it() -> None:
    text = text_of(1, 3_000)
    ours = chain(text)
    assert not {*ours} & {*chain(text, "bob")}
    assert not {*ours} & {*chain(text, shared=True)}
    assert chain(text, shared=True) == chain(text, "bob", shared=True)
    # No account can be called so that its chains are the shared ones.
    assert not {*chain(text, "anybody")} & {*chain(text, shared=True)}


def test_nobody_who_lacks_the_secret_can_tell_a_prompt_by_its_chain() -> None:
    text = text_of(1, 3_000)
    assert not {*chain(text)} & {*chain(text, key=chain_key(b"another secret"))}
    assert all(re.fullmatch(r"[0-9]+\.[0-9a-f]{12}", link) for link in chain(text))
