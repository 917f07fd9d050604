"""``[[rollout.mcp]]``: a server whose tools a model may call."""

from __future__ import annotations

from pydantic import model_validator

from rft.config.section import Section


class McpConfig(Section):
    command: list[str] = []
    """A program and its arguments that speak MCP over standard input and output, e.g. ``["python", "server.py"]``. Each
    explorer starts its own, and starts it again when it has died."""
    url: str | None = None
    """Instead of a program, the address of a server (streamable HTTP), e.g. ``http://127.0.0.1:8000/mcp``."""
    env: dict[str, str] = {}
    """Environment variables of the program, in addition to PATH, HOME and few others. Put no secrets here."""
    pass_env: list[str] = []
    """Names of the explorer's environment variables that the program gets, too; the place for secrets."""
    headers_env: dict[str, str] = {}
    """HTTP headers by name, each with the environment variable that holds its value, e.g.
    ``{ Authorization = "MCP_AUTHORIZATION" }``."""

    @model_validator(mode="after")
    def _program_or_address(self) -> McpConfig:
        if bool(self.command) == (self.url is not None):
            raise ValueError("give either command or url")
        if self.command and not self.command[0].strip():
            raise ValueError("command begins with the name of a program")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if self.command and self.headers_env:
            raise ValueError("headers_env belongs to url")
        if self.url and (self.env or self.pass_env):
            raise ValueError("env and pass_env belong to command")
        return self

    @property
    def shown(self) -> str:
        """The server in messages: its program or its address, without what may be secret."""
        if self.url is None:
            return f"{self.command[0]} ({len(self.command) - 1} arguments)"
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.split('/')[0].rpartition('@')[2]}"
