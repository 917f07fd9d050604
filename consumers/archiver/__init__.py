"""Copies topics into an archive while they are written, each event exactly once.

The archive itself says how far it is: a finished file's name holds the offset after its last event. What is not in a
finished file is copied again.
"""

from __future__ import annotations

from consumers.archiver.role import run

__all__ = ["run"]
