"""Lineage: which events made these weights, which weights made this event, and what became of it."""

from __future__ import annotations

from consumers.lineage import table
from consumers.lineage.queries import of_experience, of_step, of_task, of_weights

__all__ = ["of_experience", "of_step", "of_task", "of_weights", "table"]
