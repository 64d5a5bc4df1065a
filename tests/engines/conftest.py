"""The models that every engine test runs on: the built-in one, and random weights on three kinds of vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from tests.engines.bench import MeasuredEngine
from tests.engines.random_model import VOCABULARIES, build, vocabulary_file

SLOTS, CONTEXT = 4, 256
BUILT_IN = "herd-tiny"


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models by the name of their vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    return {name: build(folder / f"{name}.gguf", vocabulary_file(name)) for name in VOCABULARIES}


@pytest.fixture(scope="session", params=[BUILT_IN, *VOCABULARIES])
def model_file(request: pytest.FixtureRequest, random_models: dict[str, Path]) -> Path:
    """Each model in turn."""
    name: str = request.param
    return Path(str(files("herder") / "models" / f"{name}.gguf")) if name == BUILT_IN else random_models[name]


@pytest.fixture(scope="session")
def engine(model_file: Path) -> Iterator[MeasuredEngine]:
    """The model, loaded once."""
    engine = MeasuredEngine(model_file, slots=SLOTS, context=CONTEXT, threads=2)
    yield engine
    engine.close()
