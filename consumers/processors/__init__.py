"""Runs the processor role: a stream backend around :mod:`rft.stream`.

It reads ``experiences`` (and ``rewards``), and writes ``ready``, ``dlq`` and ``waiting``. An event counts as read only
when its outcome is acknowledged.
"""

from __future__ import annotations

from consumers.processors.role import run

__all__ = ["run"]
