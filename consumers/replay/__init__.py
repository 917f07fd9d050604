"""Replay selects events of the log again, to write them to a file or to train on them offline.

The events keep their recorded rewards or get other ones.
"""

from __future__ import annotations

from rft.errors import ConfigError, RftError

__all__ = ["ReplayError", "SelectionError"]


class SelectionError(ConfigError):
    """A range or a filter expression cannot be understood. The message names the fault and its position in the text."""


class ReplayError(RftError):
    """The replay is impossible: nothing is selected, the target exists, or a library is missing."""
