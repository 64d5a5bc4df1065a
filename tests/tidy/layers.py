"""Who may import whom, and which file owns which library; read from the syntax tree, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.tidy.tree import Source

HERDER, WORKER, CLIENT = "herder/", "worker/", "client/llama_herder/"
CLI = CLIENT + "cli/"

# All that a worker may know of the broker.
LEAVES = frozenset({
    "brief", "choices", "protocol", "lifecycle", "pricing", "errors", "settings", "clock", "keys",
    "scripts", "broker", "replies", "reads", "records", "doorbell", "ledger", "prompts", "reasoning", "logs",
    "schema_tree", "schema_numbers", "pieces", "gpus", "templates", "child", "broker_settings",
    "dialect_settings", "line", "sources", "waiting",
})  # fmt: skip

NOT_FOR_CLIENTS = frozenset(
    {"redis", "fastapi", "starlette", "herder", "worker", "pydantic", "llama_cpp", "numpy"}
)

# One library, one owner: the files (or folders, with a slash) of the three packages that may import it.
OWNERS: dict[str, tuple[str, ...]] = {
    "arq": ("herder/courier.py",),
    "fastapi": ("herder/app.py", "herder/api/", "herder/dialects/"),
    "httpcore": ("herder/egress.py",),
    "huggingface_hub": ("worker/models.py",),
    "jsonschema_rs": ("worker/answers.py",),
    "jinja2": ("herder/rendering.py",),
    # The counting child reads a vocabulary without a model.
    "llama_cpp": ("worker/llama.py", "worker/batch.py", "worker/parameters.py", "herder/counting_child.py"),
    "llguidance": ("worker/grammar.py", "herder/schemas_child.py"),
    "numpy": ("worker/llama.py", "worker/batch.py", "worker/sampling.py", "worker/grammar.py"),
    "prometheus_client": ("herder/api/metrics.py",),
    "pydantic_settings": (
        "herder/settings.py",
        "herder/broker_settings.py",
        "herder/dialect_settings.py",
        "herder/sources.py",
    ),
    # The broker is one class in two files; the embedded server is asked whether it is there.
    "redis": (
        "herder/broker.py",
        "herder/reads.py",
        "herder/line.py",
        "herder/scripts.py",
        "herder/doorbell.py",
        "herder/embedded.py",
    ),
    "rich": (CLI, "herder/commands.py"),
    "sse_starlette": ("herder/api/events.py",),
    "typer": (CLI, "herder/commands.py"),
    "uvicorn": ("herder/serve.py",),
    "yaml": ("herder/modules/__init__.py",),
}


@dataclass(frozen=True)
class Import:
    """`from herder import keys` is the module `herder.keys`; `lazy` is inside a function."""

    module: str
    line: int
    lazy: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def imports(source: Source) -> Iterator[Import]:
    """Every import of a file; relative ones are made absolute."""
    package = source.path.removeprefix("client/").split("/")[:-1]

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                yield Import(f"{base}.{name.name}", node.lineno, lazy)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(source.text), False)


def _forbidden(path: str, found: Import) -> bool:
    if path.startswith(HERDER):
        return found.top in {"worker", "llama_herder", "tests", "benchmarks", "tools"}
    if path.startswith(WORKER):
        leaf = found.module.split(".")[1] if "." in found.module else ""
        return found.top in {"llama_herder", "tests", "benchmarks", "tools"} or (
            found.top == "herder" and leaf not in LEAVES
        )
    if path.startswith(CLI):
        return found.top in {"tests", "benchmarks", "tools"} or (
            found.top in NOT_FOR_CLIENTS and not found.lazy
        )
    if path.startswith(CLIENT):
        return found.top in {"tests", "benchmarks", "tools"} or found.top in NOT_FOR_CLIENTS
    return False


def layer_breaches(source: Source) -> list[str]:
    """Imports that go up or across: the layers of the three packages."""
    return [
        f"{source.path}:{i.line}: must not import {i.module}"
        for i in imports(source)
        if _forbidden(source.path, i)
    ]


def foreign_libraries(source: Source) -> list[str]:
    """Imports of a library by a file that does not own it."""
    if not source.path.startswith((HERDER, WORKER, CLIENT)):
        return []
    return [
        f"{source.path}:{i.line}: {i.top} belongs to {', '.join(OWNERS[i.top])}"
        for i in imports(source)
        if i.top in OWNERS and not source.path.startswith(OWNERS[i.top])
    ]


def idle_owners(files: list[Source]) -> list[str]:
    """Entries of OWNERS under which no file imports the library any more."""
    used = {(i.top, file.path) for file in files if file.path.endswith(".py") for i in imports(file)}
    return [
        f"{owner} owns {library} and does not import it"
        for library, owners in OWNERS.items()
        for owner in owners
        if not any(top == library and path.startswith(owner) for top, path in used)
    ]
