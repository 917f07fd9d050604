"""Injects faults drawn from a seed into whole pipelines on Apache Kafka; afterwards the log must balance.

``plan.py`` draws the faults (pure), ``harness.py`` injects them, ``table.py`` shows the results (pure).
"""

import sys
from pathlib import Path

# Modules that the other tests of whole pipelines use. pytest would add these folders, `python -m chaos` does not.
for _folder in (Path(__file__).parents[1], Path(__file__).parents[1] / "e2e"):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))
