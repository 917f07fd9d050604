"""Implements the processor's event source and sink (:mod:`consumers.processors.contract`) with Faust."""

from __future__ import annotations

from consumers.processors.faust_backend.backend import open_faust

__all__ = ["open_faust"]
