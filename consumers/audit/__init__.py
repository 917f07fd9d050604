"""Audits a log: proves, id by id, that no experience was lost and none was trained twice."""

from __future__ import annotations

from consumers.audit.audit import audit

__all__ = ["audit"]
