"""Fixtures for all tests of policies: one tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import require_vllm
from tiny_policy import make_model

from rft.config import PolicyConfig
from rft.policy.base import Policy
from rft.policy.transformers.policy import TransformersPolicy


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the same architecture from another seed."""
    return make_model(tmp_path_factory.mktemp("other"), 1)


@pytest.fixture
def endless_policy(tmp_path: Path) -> Iterator[TransformersPolicy]:
    """A policy whose sequences end only at ``max_tokens``."""
    policy = TransformersPolicy(PolicyConfig(model=str(make_model(tmp_path / "endless", 0, ends=False)), device="cpu"))
    yield policy
    policy.close()


@pytest.fixture
def policy(model_folder: Path) -> Iterator[TransformersPolicy]:
    policy = TransformersPolicy(PolicyConfig(model=str(model_folder), device="cpu"))
    yield policy
    policy.close()


@pytest.fixture(scope="session")
def vllm_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of four weight versions of one architecture, whose sequences end only at ``max_tokens``."""
    root = tmp_path_factory.mktemp("vllm")
    return [make_model(root / f"v{seed}", seed, ends=False, head_dim=32) for seed in range(4)]


@pytest.fixture(scope="session")
def shared_vllm(vllm_folders: list[Path]) -> Iterator[Policy]:
    """One engine for all tests of a session, since it takes half a minute to start."""
    require_vllm()
    from rft.policy.vllm.policy import VllmPolicy

    policy = VllmPolicy(PolicyConfig(engine="vllm", model=str(vllm_folders[0]), max_batch=16))
    yield policy
    policy.close()
