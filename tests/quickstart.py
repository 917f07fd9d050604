"""Makes the quickstart's model, which is small and learns."""

from __future__ import annotations

import sys
from pathlib import Path


def make_quickstart_model(folder: Path) -> Path:
    """Make the model in ``folder`` with the example's own program."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "quickstart"))
    try:
        from make_model import make_model
    finally:
        sys.path.pop(0)
    make_model(folder)
    return folder
