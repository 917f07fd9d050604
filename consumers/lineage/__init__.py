"""Traces which events made some weights, which weights wrote an event, and what became of it."""

from __future__ import annotations

from consumers.lineage import table
from consumers.lineage.queries import trace_experience, trace_step, trace_task, trace_weights

__all__ = ["table", "trace_experience", "trace_step", "trace_task", "trace_weights"]
