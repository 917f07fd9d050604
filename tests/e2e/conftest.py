"""Pipelines that tests drive, always ended with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline import Pipeline


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's model."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "quickstart"))
    try:
        from make_model import make_model
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_model(folder)
    return folder


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Pipeline]]:
    started: list[Pipeline] = []

    def start(settings: dict[str, Any]) -> Pipeline:
        run = Pipeline(tmp_path, settings)
        run.start()
        started.append(run)
        return run

    yield start
    for run in started:
        run.stop()
