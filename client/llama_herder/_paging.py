"""All of a list, page by page: the cursor is followed until there is no next one. Knows no kind of list."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from llama_herder._json import Page
from llama_herder.errors import HerderError

T = TypeVar("T")

PAGE_ITEMS = 100


Pages: TypeAlias = Generator[str | None, Page[T], None]


def paged() -> Pages[T]:
    """Yields the cursor of each page that is to be read and is sent the page.

    Ends after the last. Raises HerderError where a list would begin again.
    """
    cursor: str | None = None
    seen: set[str] = set()
    while True:
        page = yield cursor
        cursor = page.next
        if cursor is None:
            return
        if cursor in seen:
            raise HerderError("the list does not end: the herder named the same page twice")
        seen.add(cursor)
