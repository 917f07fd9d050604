"""Tools that a model calls: Python functions and MCP servers, their schemas, and the formats of calls."""
