"""The table of Redis keys beside its page and its Lua form."""

from __future__ import annotations

from herder.keys import TABLE, Keys, lua_key_functions
from tests.tidy.tree import ROOT

PAGE = (ROOT / "docs" / "reference" / "redis-keys.md").read_text("utf-8")


def test_the_page_tells_the_table() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{key.pattern}` | {key.redis_type} | {key.lifetime} | {key.holds} |" for key in TABLE.values()
    ]


def test_every_key_has_a_lua_function_of_its_arguments() -> None:
    source = lua_key_functions()
    for name, key in TABLE.items():
        arguments = ", ".join(f"x{i}" for i in range(key.pattern.count("{}")))
        assert f"function K.{name}({arguments}) return PREFIX .. ':" in source


def test_keys_fill_their_pattern() -> None:
    keys = Keys("lh")
    assert keys("leases") == "lh:leases"
    assert keys("idempotency", "ann", "k1") == "lh:idempotency:ann:k1"


def test_no_two_patterns_can_name_the_same_key() -> None:
    firsts = [key.pattern.partition("{}")[0] for key in TABLE.values()]
    assert len(set(firsts)) == len(firsts)
