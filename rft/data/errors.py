"""What can be wrong with one row."""

from rft.errors import DataError


class RowError(DataError):
    """A row cannot be used; the others can. The message is the cause, without the row's number."""
