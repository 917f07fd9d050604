"""The tiny model of the policy tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rft.config import PolicyConfig
from rft.policy.base import Policy
from rft.policy.transformers.policy import TransformersPolicy

sys.path.append(str(Path(__file__).parents[1] / "policy"))

from tiny_policy import make_model


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Policy]:
    folder = make_model(tmp_path_factory.mktemp("model"), 0)
    policy = TransformersPolicy(PolicyConfig(model=str(folder), device="cpu"))
    yield policy
    policy.close()
