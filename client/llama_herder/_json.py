"""Reading the herder's JSON forgivingly: one object as a dataclass, one page of a list; and what JSON cannot say.

Fields that this version does not know are ignored, fields that are missing take their default; `raw` is the JSON as it
came. Knows no single kind of object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")

NESTED_MAX = 100  # levels that are searched for a number; a herder takes fewer


@dataclass(frozen=True)
class FromJson:
    """Forgiving construction from a JSON object."""

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Reads a JSON object; unknown fields are kept in `raw` only."""
        found = dict(data) if isinstance(data, Mapping) else {}
        known = {item.name for item in fields(cls)} - {"raw"}
        values = {name: value for name, value in found.items() if name in known and value is not None}
        return cls(**cls._nested(values), raw=found)

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values


@dataclass(frozen=True)
class Page(Sequence[T], Generic[T]):
    """Part of a list, newest first; `next` is the cursor of the part that follows, None at the end.

    >>> page = herder.jobs(limit=20)
    >>> older = herder.jobs(limit=20, cursor=page.next) if page.next else ()
    """

    items: tuple[T, ...]
    next: str | None = None

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)


def page_of(name: str, read: Callable[[Any], T]) -> Callable[[Any], Page[T]]:
    """A reader of `{name: […], "next": …}`."""

    def parse(data: Any) -> Page[T]:
        found = data if isinstance(data, Mapping) else {}
        items = found.get(name)
        cursor = found.get("next")
        rows = tuple(read(item) for item in items) if isinstance(items, list) else ()
        return Page(rows, str(cursor) if cursor is not None else None)

    return parse


def odd_number(value: object, name: str = "", within: tuple[int, ...] = ()) -> str | None:
    """What is wrong with the first number that JSON has no word for: "multiplier must be a finite number, not nan".

    `within` are the ids of what holds the value: something that holds itself is not searched without end.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name or 'it'} must be a finite number, not {value}"
    parts: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return None
    if id(value) in within or len(within) >= NESTED_MAX:
        return None
    inner = (*within, id(value))
    found = (odd_number(part, f"{name}.{key}" if name else str(key), inner) for key, part in parts)
    return next(filter(None, found), None)
