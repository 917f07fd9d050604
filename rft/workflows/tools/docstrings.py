"""Reads a function's docstring in Google's style: what the function does, and what its arguments mean (pure)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

_ARGS = ("Args:", "Arguments:", "Parameters:")
_SECTION = re.compile(r"[A-Z][A-Za-z ]{0,40}:")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\([^()]*\))?\s*:\s*(.*)")


def read_docstring(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Return the text before the first section, and the description of each argument by name."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    begins = next((number for number, line in enumerate(lines) if line in _ARGS), len(lines))
    ends = next((number for number, line in enumerate(lines) if _SECTION.fullmatch(line)), len(lines))
    return " ".join("\n".join(lines[:ends]).split()), _arguments(lines[begins + 1 :])


def _arguments(lines: Sequence[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    indent, name = 0, ""
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        if depth == 0:  # the next section
            break
        indent = indent or depth
        entry = _ENTRY.fullmatch(line.strip()) if depth <= indent else None
        if entry:
            name = entry[1]
            found[name] = [entry[2]]
        elif name:
            found[name].append(line.strip())
    return {name: " ".join(" ".join(parts).split()) for name, parts in found.items()}
