"""The quickstart's model, once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "quickstart"))
    try:
        from make_model import make_model
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_model(folder)
    return folder
