"""A fixture for pipelines, which end with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline import Pipeline


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
