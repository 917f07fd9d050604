"""One tiny model for all tests of policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_policy import make_model

from rft.config import PolicyConfig
from rft.policy.transformers_policy import TransformersPolicy


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the same architecture from another seed."""
    return make_model(tmp_path_factory.mktemp("other"), 1)


@pytest.fixture
def endless_policy(tmp_path: Path) -> Iterator[TransformersPolicy]:
    """A policy whose sequences end at ``max_tokens`` only."""
    policy = TransformersPolicy(PolicyConfig(model=str(make_model(tmp_path / "endless", 0, ends=False)), device="cpu"))
    yield policy
    policy.close()


@pytest.fixture
def policy(model_folder: Path) -> Iterator[TransformersPolicy]:
    policy = TransformersPolicy(PolicyConfig(model=str(model_folder), device="cpu"))
    yield policy
    policy.close()
