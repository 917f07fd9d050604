"""Evaluates models without a log: ``rft eval``, and the accuracy before and after an offline run."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "Stage"]

Progress = Callable[[int, int], None]
"""Called with the units of work that are done, and their total."""

Stage = Callable[[str], Progress]
"""Begins a stage of that name, and returns the function to call with its progress."""
