"""Finds the invalid field in plain values that Avro cannot write, for error messages."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import fastavro


def find_invalid_field(node: Any, named: Mapping[str, Any], value: Any, path: str = "") -> tuple[str, str] | None:
    """Return path and fault of the first part of ``value`` that does not fit schema ``node``; None if all of it
    fits."""
    if isinstance(node, str) and node in named:
        node = named[node]
    kind = node["type"] if isinstance(node, dict) else node
    if kind == "record":
        if not isinstance(value, dict):
            return path, f"is a {type(value).__name__}, must be a record"
        for field in node["fields"]:
            inner = f"{path}.{field['name']}" if path else field["name"]
            if field["name"] not in value:
                return inner, "is missing"
            found = find_invalid_field(field["type"], named, value[field["name"]], inner)
            if found:
                return found
        return None
    if kind == "array":
        for index, item in enumerate(value):
            found = find_invalid_field(node["items"], named, item, f"{path}[{index}]")
            if found:
                return found
        return None
    if kind == "map":
        for key, item in value.items():
            if not isinstance(key, str):
                return path, f"has the key {key!r}, must be a string"
            found = find_invalid_field(node["values"], named, item, f"{path}[{key!r}]")
            if found:
                return found
        return None
    try:
        fastavro.schemaless_writer(BytesIO(), node, value)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        return path, f"{error} ({type(value).__name__} for {node})"
    return None
