"""What can be wrong with a replay."""

from __future__ import annotations

from rft.errors import ConfigError, RftError


class SelectionError(ConfigError):
    """A range or a filter expression cannot be understood. Says what, and where in the text."""


class ReplayError(RftError):
    """The replay cannot be done: nothing is selected, the target exists, a library is missing."""
