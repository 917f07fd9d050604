"""Defines the errors of the schemas. :mod:`rft.errors` draws the whole tree."""

from __future__ import annotations


class RftError(Exception):
    """Base of all errors that an operator may see. Its text is one clear message."""

    exit_code = 1
    transient = False
    """Whether the error may pass by itself, so that a process that is started again may succeed."""


class DecodeError(RftError, ValueError):
    """An event's bytes are not a valid record.

    ``field`` is the path of the invalid field, e.g. ``experience.logprobs`` or ``trained[3].offset``. It is None if the
    fault is in the frame around the record.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.field = field


class EncodeError(RftError, ValueError):
    """A record holds values that cannot be written: arrays of different lengths, NaN, a value of the wrong type.

    ``field`` is the path of the invalid field.
    """

    def __init__(self, message: str, field: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class RegistryError(RftError):
    """A schema registry refuses a request, or its answer is invalid. The message holds the registry's own text."""


class RegistryUnreachableError(RegistryError):
    """The registry does not answer, or answers that it is not available. Retrying later may help."""

    transient = True


class IncompatibleSchemaError(RegistryError):
    """A schema breaks readers or writers of another version. The message names each incompatibility and what to do."""
