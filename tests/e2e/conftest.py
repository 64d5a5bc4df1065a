"""One slow model for the whole run: answers that take seconds, so that something can die in the middle of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.herd import short_folder
from tests.e2e.slow_model import slow_model


@pytest.fixture(scope="session")
def slow() -> Iterator[str]:
    """What `--model` takes."""
    with short_folder() as folder:
        yield slow_model(folder)
