"""Makes the tools that a configuration names."""

from __future__ import annotations

from rft.config import RolloutConfig
from rft.workflows.tools.base import Limits, ToolSet
from rft.workflows.tools.functions import load_function
from rft.workflows.tools.mcp_servers import McpServer


def configured_tools(config: RolloutConfig) -> ToolSet:
    """Return the tools of ``rollout.tools`` and ``rollout.mcp``; nothing is started before it is entered.

    Raises ConfigError if a function does not exist or does not suit a tool, or if what a server needs is missing.
    """
    functions = [load_function(name) for name in config.tools]
    servers = [McpServer(server, f"rollout.mcp[{number}]") for number, server in enumerate(config.mcp)]
    return ToolSet(functions, servers, Limits(config.tool_timeout_s, config.tool_answer_chars))
