"""Faults injected into whole pipelines on Apache Kafka, drawn from a seed; afterwards the log must account for all.

``plan.py`` draws them (pure), ``harness.py`` carries them out, ``table.py`` says what came of it (pure).
"""

import sys
from pathlib import Path

# What the other tests of whole pipelines use, also when this is not run by pytest.
for _folder in (Path(__file__).parents[1], Path(__file__).parents[1] / "e2e"):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))
