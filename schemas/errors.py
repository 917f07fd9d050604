"""Errors of the ground floor. :mod:`rft.errors` draws the whole tree."""

from __future__ import annotations


class RftError(Exception):
    """Base of all errors that an operator may see; ``str()`` is one clear message."""

    exit_code = 1


class DecodeError(RftError, ValueError):
    """An event's bytes are not a valid record.

    ``field`` is the path of the offending field, e.g. ``experience.logprobs`` or ``trained[3].offset``;
    None when the fault is in the frame around the record.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.field = field


class EncodeError(RftError, ValueError):
    """A record holds what cannot be written: arrays of different lengths, NaN, a value of the wrong type.

    ``field`` is the path of the offending field.
    """

    def __init__(self, message: str, field: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class RegistryError(RftError):
    """A schema registry refuses us or answers what makes no sense; the message holds its own words."""


class RegistryUnreachableError(RegistryError):
    """The registry does not answer, or answers that it cannot now. Trying again later may help."""


class IncompatibleSchemaError(RegistryError):
    """A schema breaks readers or writers of another version; the message names each place and what to do."""
