"""The contract of tools: what a tool is, where tools come from, and how a set of them is opened and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rft.errors import ConfigError, RftError


class ToolError(RftError):
    """A tool cannot answer a call. The message is the tool's answer, in words for the model."""


class Tool(Protocol):
    """Something that a model can call by its name."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """What the tool does, in words for the model."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments, an object."""
        ...

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Return the tool's answer. Raises ToolError for wrong arguments, and whatever the tool raises."""
        ...


class ToolSource(Protocol):
    """Gives tools for as long as it is open, such as an MCP server."""

    @property
    def field(self) -> str:
        """Where the configuration names it."""
        ...

    async def open(self) -> Sequence[Tool]:
        """Open it and return its tools. Raises ConfigError if it cannot be opened."""
        ...

    async def close(self) -> None:
        """Close it. It may be closed twice, and without having been opened."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a tool's calls."""

    timeout_s: float = 30.0
    """Deadline of one call."""
    answer_chars: int = 8000
    """Length of an answer; a longer one is cut."""


class ToolSet:
    """Tools by their names. Use it as an asynchronous context manager, from one event loop."""

    def __init__(self, tools: Sequence[Tool] = (), sources: Sequence[ToolSource] = (), limits: Limits | None = None):
        """Take ``tools`` that are there, and ``sources`` of further ones. Raises ConfigError if names repeat."""
        self.limits = limits or Limits()
        self._own = tuple(tools)
        self._sources = tuple(sources)
        self._tools = _by_name([("rollout.tools", tool) for tool in tools])

    async def __aenter__(self) -> ToolSet:
        """Open the sources. Raises ConfigError if one cannot be opened, or if two tools have the same name."""
        found = [("rollout.tools", tool) for tool in self._own]
        try:
            for source in self._sources:
                found += [(source.field, tool) for tool in await source.open()]
            self._tools = _by_name(found)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all sources, at the same time."""
        await asyncio.gather(*(source.close() for source in self._sources), return_exceptions=True)

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools by name."""
        return self._tools

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The tools in OpenAI's format, as chat templates take them."""
        return [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
            }
            for tool in self._tools.values()
        ]


def _by_name(found: Sequence[tuple[str, Tool]]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    fields: dict[str, str] = {}
    for field, tool in found:
        if tool.name in tools:
            raise ConfigError(
                f"two tools have the name {tool.name!r}: one in {fields[tool.name]} and one in {field}; rename one"
            )
        tools[tool.name], fields[tool.name] = tool, field
    return tools
