"""The audit: proves from the log that no experience was lost and none trained twice, id by id."""

from __future__ import annotations

from consumers.audit.audit import audit

__all__ = ["audit"]
