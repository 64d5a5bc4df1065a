"""How a file is written: its size, its name, its docstring, and what must not stand in it."""

from __future__ import annotations

import ast
import re

from tests.tidy.tree import Source

FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60
TOUR_STOPS = 8

AVOIDED_WORDS = frozenset(
    {"payload", "data", "manager", "service", "utils", "util", "helpers", "helper", "common", "misc"}
)

# Put together here, so that this file does not contain them.
_REGISTRIES = tuple(".".join(parts) for parts in (
    ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("debian", "org"), ("docker", "io"),
))  # fmt: skip
_MACHINE_PATH = re.compile(r"(?<![\w.)}/-])/(?:work|home|tmp|root|opt)(?![\w-])")
_TOUR = re.compile(rf"\bTour (\d)/{TOUR_STOPS}\b")


def long_file(source: Source) -> list[str]:
    """Python and Lua files fit in FILE_LINES_MAX lines."""
    lines = len(source.text.splitlines())
    if source.path.endswith((".py", ".lua")) and lines > FILE_LINES_MAX:
        return [f"{source.path}: {lines} lines, {FILE_LINES_MAX} at most"]
    return []


def long_functions(source: Source) -> list[str]:
    """A function fits a screen; its decorators are not counted, its docstring is."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                found.append(
                    f"{source.path}:{node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES_MAX} at most"
                )
    return found


def missing_docstring(source: Source) -> list[str]:
    """Every module says what it is for."""
    return [] if ast.get_docstring(ast.parse(source.text)) else [f"{source.path}: no module docstring"]


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def sleeps(source: Source) -> list[str]:
    """A test waits for a condition; only `sleep(0)` is allowed."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Call) and _dotted(node.func).rpartition(".")[2] == "sleep":
            zero = [isinstance(a, ast.Constant) and a.value == 0 for a in node.args] == [True]
            if not zero:
                found.append(f"{source.path}:{node.lineno}: a test does not sleep")
    return found


def skips(source: Source) -> list[str]:
    """Every test runs and every test is expected to pass."""
    words = {"skip", "skipif", "skipIf", "skipUnless", "xfail", "importorskip", "SkipTest", "skipTest"}
    found: list[str] = []
    for node in ast.walk(ast.parse(source.text)):
        named = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
        dotted = _dotted(node) if isinstance(node, ast.Attribute) else ""
        if named & words or (
            dotted.rpartition(".")[2] in words
            and dotted.startswith(("pytest.", "mark.", "unittest.", "self."))
        ):
            found.append(
                f"{source.path}:{getattr(node, 'lineno', 0)}: no test is skipped or expected to fail"
            )
    return found


def machine_paths(source: Source) -> list[str]:
    """Outside the docs nothing names a folder of one machine."""
    if source.path.endswith(".md") or source.path.startswith("docs/"):
        return []
    return _lines_matching(source, _MACHINE_PATH, "a path of one machine")


def registries(source: Source) -> list[str]:
    """Nothing records where packages are downloaded from."""
    pattern = re.compile("|".join(re.escape(host) for host in _REGISTRIES), re.IGNORECASE)
    return _lines_matching(source, pattern, "a package registry")


def avoided_names(source: Source) -> list[str]:
    """No module or folder is named after a word that says nothing."""
    if not source.path.endswith((".py", ".lua")):
        return []
    words = set(re.split(r"[/_.-]", source.path.lower()))
    return [f"{source.path}: '{word}' says nothing" for word in sorted(words & AVOIDED_WORDS)]


def tour_stops(source: Source) -> list[tuple[int, str]]:
    """The stops of the tour in one source file, with `path:line`."""
    return [
        (int(match[1]), f"{source.path}:{number}")
        for number, line in enumerate(source.text.splitlines(), 1)
        for match in _TOUR.finditer(line)
    ]


def tour_faults(files: list[Source]) -> list[str]:
    """Each stop stands exactly once, in a Python or Lua file that is neither test nor tool."""
    places: dict[int, list[str]] = {stop: [] for stop in range(1, TOUR_STOPS + 1)}
    for file in files:
        if file.path.endswith((".py", ".lua")) and not file.path.startswith(("tests/", "tools/")):
            for stop, place in tour_stops(file):
                places.setdefault(stop, []).append(place)
    return [
        f"stop {stop} of the tour stands at {', '.join(found) or 'no place'}"
        for stop, found in places.items()
        if len(found) != 1 or not 1 <= stop <= TOUR_STOPS
    ]


def _lines_matching(source: Source, pattern: re.Pattern[str], what: str) -> list[str]:
    return [
        f"{source.path}:{number}: {what}: {match[0]}"
        for number, line in enumerate(source.text.splitlines(), 1)
        if (match := pattern.search(line))
    ]
