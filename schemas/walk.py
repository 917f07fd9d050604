"""Checks Avro binary data against the specification, without building values.

fastavro is fast, but its errors don't name a field, and a foreign schema may make it recurse or count without end. This
walk always ends, in time linear in the data, and names the invalid field. It finds where fastavro failed, and it checks
data of a foreign schema before fastavro reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import DecodeError

MAX_DEPTH = 32
"""Far deeper than any record of ours; it ends recursive foreign schemas."""

_WIDTHS = {"float": 4, "double": 8}


def verify(node: Any, named: Mapping[str, Any], data: bytes, start: int = 0) -> None:
    """Check that ``data[start:]`` is exactly one value of schema ``node``. Raises DecodeError."""
    walk = _Walk(data, start, named)
    walk.value(node, "", 0)
    rest = len(data) - walk.at
    if rest:
        raise DecodeError(f"{rest} trailing bytes after the end of the record")


class _Walk:
    def __init__(self, data: bytes, start: int, named: Mapping[str, Any]) -> None:
        self.data = data
        self.at = start
        self.named = named

    def value(self, node: Any, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise DecodeError(f"nested deeper than {MAX_DEPTH}", path)
        if isinstance(node, list):
            branch = self.long(path)
            if not 0 <= branch < len(node):
                raise DecodeError(f"union branch {branch} of {len(node)}", path)
            self.value(node[branch], path, depth + 1)
            return
        kind = node["type"] if isinstance(node, dict) else node
        if kind == "record":
            for child in node["fields"]:
                self.value(child["type"], f"{path}.{child['name']}" if path else child["name"], depth + 1)
        elif kind == "array":
            self.blocks(node["items"], path, depth, keyed=False)
        elif kind == "map":
            self.blocks(node["values"], path, depth, keyed=True)
        elif kind == "enum":
            index = self.long(path)
            if not 0 <= index < len(node["symbols"]):
                raise DecodeError(f"enum symbol {index} of {len(node['symbols'])}", path)
        elif kind == "fixed":
            self.take(node["size"], path)
        elif kind in self.named:
            self.value(self.named[kind], path, depth + 1)
        elif isinstance(kind, (dict, list)):
            self.value(kind, path, depth + 1)
        else:
            self.primitive(kind, path)

    def primitive(self, kind: str, path: str) -> None:
        if kind == "long":
            self.long(path)
        elif kind == "int":
            if not -(2**31) <= self.long(path) < 2**31:
                raise DecodeError("does not fit 32 bits", path)
        elif kind == "boolean":
            if self.take(1, path) not in (b"\x00", b"\x01"):
                raise DecodeError("a boolean is neither 0 nor 1", path)
        elif kind == "string":
            self.text(path)
        elif kind == "bytes":
            self.take(self.long(path), path)
        elif kind in _WIDTHS:
            self.take(_WIDTHS[kind], path)

    def blocks(self, node: Any, path: str, depth: int, *, keyed: bool) -> None:
        index = 0
        while count := self.long(path):
            if count < 0:
                count = -count
                self.long(path)
            # Otherwise the data could claim billions of items without width.
            if count > len(self.data) - self.at:
                raise DecodeError(f"claims {count} items in {len(self.data) - self.at} bytes", path)
            for _ in range(count):
                item = f"{path}[{self.text(path)!r}]" if keyed else f"{path}[{index}]"
                self.value(node, item, depth + 1)
                index += 1

    def long(self, path: str) -> int:
        number = shift = 0
        while True:
            if self.at >= len(self.data):
                raise DecodeError("the data ends here", path)
            byte = self.data[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= 70:
                raise DecodeError("an integer is longer than 10 bytes", path)
        if number >= 2**64:
            raise DecodeError("an integer does not fit 64 bits", path)
        return (number >> 1) ^ -(number & 1)

    def text(self, path: str) -> str:
        try:
            return self.take(self.long(path), path).decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"is not UTF-8: {error.reason} at byte {error.start}", path) from None

    def take(self, size: int, path: str) -> bytes:
        if size < 0:
            raise DecodeError(f"negative length {size}", path)
        if size > len(self.data) - self.at:
            raise DecodeError(f"claims {size} bytes, the data ends after {len(self.data) - self.at}", path)
        self.at += size
        return self.data[self.at - size : self.at]
