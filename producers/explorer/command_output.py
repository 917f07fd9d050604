"""Keeps the end of what a program prints, as clean text. Pure."""

from __future__ import annotations

import re

TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Commands to a terminal, such as colors (ECMA-48)."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
ERROR_LINES = 5
ERROR_CHARS = 600


class OutputTail:
    """The last ``limit`` bytes of an output."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Append output, and drop what is too old."""
        self._kept += data
        if len(self._kept) > 2 * self._limit:
            del self._kept[: len(self._kept) - self._limit]

    def text(self) -> str:
        """Return the end of the output without commands to a terminal and other control characters."""
        kept = bytes(self._kept[max(len(self._kept) - self._limit, 0) :])
        text = TERMINAL.sub("", kept.decode("utf-8", "replace")).replace("\r\n", "\n").replace("\r", "\n")
        return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def last_lines(text: str) -> str:
    """Return the last lines that are not empty in one line, for an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-ERROR_LINES:])[-ERROR_CHARS:]
