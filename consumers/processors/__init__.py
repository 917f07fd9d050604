"""The processor role: a Faust worker around :mod:`rft.stream`.

Reads ``experiences``, writes ``ready`` and ``dlq``. An event counts as read only when its outcome is acknowledged.
"""

from __future__ import annotations

from consumers.processors.role import run

__all__ = ["run"]
