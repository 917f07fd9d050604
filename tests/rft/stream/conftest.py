"""Fixtures that make pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from stream_experiences import MAX_BYTES, score_exactly

from rft.config import ProcessorConfig
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import make_prioritizer
from rft.stream.rules import Rules


@pytest.fixture
def make_pipeline() -> Callable[..., Pipeline]:
    def make(**settings: Any) -> Pipeline:
        config = ProcessorConfig.model_validate(settings)
        return Pipeline(Rules(config, score_exactly, make_prioritizer(config.priority), MAX_BYTES))

    return make
