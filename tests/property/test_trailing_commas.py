"""Commas too many in a body: forgiven where nothing follows them, and nothing else is changed, least of all a text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.dialects.lamini_bodies import forgiving, is_lamini, without_trailing_commas
from herder.errors import BadRequest

TEXTS = st.text(alphabet='",]}{[\\ \n:a\u00e9\U0001f999', max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
SPACES = st.text(alphabet=" \t\r\n", max_size=3)


def _written(value: Any, draw: Any, *, commas: bool) -> str:
    """JSON with spaces anywhere and, behind what is last, perhaps a comma."""
    space: str = draw(SPACES)
    match value:
        case dict():
            named = [f"{json.dumps(n)}{space}:{_written(v, draw, commas=commas)}" for n, v in value.items()]
            return _within("{}", named, space, draw, commas=commas)
        case list():
            listed = [_written(each, draw, commas=commas) for each in value]
            return _within("[]", listed, space, draw, commas=commas)
    return space + json.dumps(value, ensure_ascii=draw(st.booleans())) + space


def _within(brackets: str, parts: list[str], space: str, draw: Any, *, commas: bool) -> str:
    inner = f"{space},{draw(SPACES)}".join(parts)
    if commas and parts and draw(st.booleans()):
        inner += f"{space},{draw(SPACES)}"
    return f"{space}{brackets[0]}{inner}{space}{brackets[1]}"


@given(VALUES, st.data())
def test_what_is_meant_is_read(value: Any, data: st.DataObject) -> None:
    text = _written({"it": value}, data.draw, commas=True)
    assert json.loads(without_trailing_commas(text.encode())) == {"it": value}


@given(VALUES, st.data())
def test_what_is_right_already_is_not_touched(value: Any, data: st.DataObject) -> None:
    raw = _written(value, data.draw, commas=False).encode()
    assert without_trailing_commas(raw) == raw


@given(st.binary(max_size=60) | st.text(alphabet='",]}{[\\ \n:1', max_size=60).map(str.encode))
def test_whatever_comes_only_commas_go(raw: bytes) -> None:
    mended = without_trailing_commas(raw)
    assert mended.replace(b",", b"") == raw.replace(b",", b"")
    assert len(mended) <= len(raw)


@pytest.mark.parametrize(
    "raw", [b"[,]", b"{,}", b'{"a":1,,}', b"[1,,2]", b"[1,", b'{"a":[,1]}', b'{"it": "a,}', b"{]", b""]
)
def test_what_is_broken_in_other_ways_stays_so(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        forgiving(raw)


@pytest.mark.parametrize("raw", [b'"\\"' * 200_000, b"[" * 400_000, b", " * 200_000, b'"' + b"\\" * 399_999])
def test_a_hostile_body_takes_no_longer_than_its_length(raw: bytes) -> None:
    """Within the time limit of a test, which backtracking would not be."""
    without_trailing_commas(raw)


@pytest.mark.parametrize(
    ("raw", "theirs"),
    [
        (b'{"model_name": "m", "prompt": "hi",}', True),
        (b'{"model_name": null, "prompt": "hi"}', True),
        (b'{"model_name": "m", "model": null}', True),
        (b'{"model_name": "m", "model": "m"}', False),
        (b'{"model": "m", "prompt": "hi",}', False),
        (b'{"prompt": "hi"}', False),
        (b"[1,]", False),
        (b"nothing", False),
    ],
)
def test_whose_body_it_is(raw: bytes, theirs: bool) -> None:
    assert is_lamini(raw) is theirs
