"""Tests that the configured engine is opened, or that one line names what is missing before anything starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra.preflight.model import check_model
from rft.config import Config
from rft.errors import PolicyError
from rft.policy import open_policy
from rft.policy.transformers.policy import TransformersPolicy


def test_the_default_engine_needs_nothing_else(model_folder: Path) -> None:
    policy = open_policy(Config.model_validate({"policy": {"model": str(model_folder), "device": "cpu"}}))
    assert isinstance(policy, TransformersPolicy)
    assert policy.error is None
    policy.close()


def test_an_error_names_how_to_install_a_missing_vllm(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    config = Config.model_validate({"policy": {"model": str(model_folder), "engine": "vllm"}})
    for use in (check_model, open_policy):
        with pytest.raises(PolicyError, match="make vllm"):
            use(config)


def test_an_error_names_a_server_that_cannot_be_reached(model_folder: Path) -> None:
    config = Config.model_validate(
        {
            "policy": {
                "model": str(model_folder),
                "engine": "openai",
                "openai": {"base_url": "http://127.0.0.1:1/v1"},
            }
        }
    )
    with pytest.raises(PolicyError, match=r"127.0.0.1:1/v1 cannot be reached"):
        open_policy(config)
