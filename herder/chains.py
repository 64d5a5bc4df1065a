"""The chain of a prompt: keyed hashes of some of its beginnings, by which a worker that still holds one is found. Pure.

Which beginnings: so that two prompts which share much have a common one, however different their lengths, and so that
there are few of them. Knows no Redis and no tokens: what a worker really shares it finds out token by token.
"""

from __future__ import annotations

import hashlib

from herder.brief import Brief

BLOCK_BYTES = 256
"""Beginnings are whole blocks; a prompt shorter than one has an empty chain, and costs nothing anywhere."""
DIGEST_BYTES = 6  # two alike by chance would cost a moment, not an answer
KEY_BYTES = 32


def chain_key(secret: bytes) -> bytes:
    """The key of the hashes, made of the herd's secret: what stands in Redis says nothing of any prompt."""
    return hashlib.blake2b(b"chains of prompts", key=hashlib.sha256(secret).digest()).digest()[:KEY_BYTES]


def chain_for(brief: Brief, key: bytes, account: str) -> tuple[str, ...]:
    """The chain of a job's prompt; empty where nothing of it is to come from a cache."""
    return chain_of(key, account, brief.prompt, shared=brief.share_prefix) if brief.cache_prompt else ()


def chain_of(key: bytes, account: str, text: str, *, shared: bool) -> tuple[str, ...]:
    """`blocks.hash` of the beginnings of a rendered prompt, from the shortest to the longest.

    `blocks` is a beginning's length in BLOCK_BYTES of UTF-8. Equal only for equal beginnings of the same account, or,
    where both allow it (`shared`), of any.
    """
    octets = text.encode("utf-8", "surrogatepass")
    if len(octets) < BLOCK_BYTES:
        return ()
    salt = b"anybody" if shared else b"account " + account.encode()
    salted = hashlib.blake2b(salt, key=key, digest_size=KEY_BYTES).digest()
    running = hashlib.blake2b(key=salted, digest_size=DIGEST_BYTES)
    links, done, view = [], 0, memoryview(octets)
    for blocks in beginnings(len(octets) // BLOCK_BYTES):
        running.update(view[done : blocks * BLOCK_BYTES])
        done = blocks * BLOCK_BYTES
        links.append(f"{blocks}.{running.hexdigest()}")
    return tuple(links)


def beginnings(whole: int) -> list[int]:
    """Lengths, in blocks, of the beginnings of a prompt of so many whole blocks; at most 3 for each doubling.

    1. 1, 2, 4, …: two prompts with a common opening meet at half of it or more, whatever follows.
    2. The last two multiples of 1, 2, 4, …: one that goes on where another ended meets it at no more than twice the
    new part before that end, so a chat's next turn is told from another chat with the same opening.
    """
    found: set[int] = set()
    step = 1
    while step <= whole:
        last = whole - whole % step
        found |= {step, last, last - step}
        step *= 2
    return sorted(found - {0})
