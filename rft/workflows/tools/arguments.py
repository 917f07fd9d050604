"""Fits the arguments of a call to a tool's schema where a format of calls knows only texts (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_BOUND = 8
"""So many nested references and alternatives of a schema are followed."""


def fit_arguments(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``arguments`` in which a text whose parameter takes no text is read as JSON.

    Qwen3-Coder writes ``2`` for the number 2 and ``[1, 2]`` for a list. What is no JSON stays a text, and the tool
    says what is wrong with it.
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return dict(arguments)
    return {
        name: _read(value) if isinstance(value, str) and not _takes_text(properties.get(name), schema, 0) else value
        for name, value in arguments.items()
    }


def _read(text: str) -> Any:
    word = text.strip()
    if word in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[word]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _takes_text(schema: object, root: Mapping[str, Any], depth: int) -> bool:
    """Return whether a value of ``schema`` may be a text; if the schema does not tell, it may."""
    if not isinstance(schema, Mapping) or depth > _BOUND:
        return True
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        definitions = root.get("$defs")
        named = definitions.get(reference.removeprefix("#/$defs/")) if isinstance(definitions, Mapping) else None
        return _takes_text(named, root, depth + 1)
    for key in ("anyOf", "oneOf"):
        if isinstance(alternatives := schema.get(key), list):
            return any(_takes_text(alternative, root, depth + 1) for alternative in alternatives)
    if isinstance(values := schema.get("enum"), list):
        return any(isinstance(value, str) for value in values)
    if "const" in schema:
        return isinstance(schema["const"], str)
    kinds = schema.get("type")
    if kinds is None:
        return True
    return "string" in kinds if isinstance(kinds, list) else kinds == "string"
