"""``[rollout]``: how explorers roll a task out."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rft.config.mcp import McpConfig
from rft.config.section import Section
from rft.plugins import FORM, is_plugin


class RolloutConfig(Section):
    samples: int = Field(default=8, ge=1, le=1024)
    """Group size: rollouts of each task."""
    spare: int = Field(default=0, ge=0, le=1024)
    """Rollouts of each task beyond ``samples``. A group is complete with the first ``samples`` that do not fail. The
    explorer then cancels the others, and those that come all the same are dropped, cause ``spare``. So a step waits for
    no straggler, but a policy learns less from long rollouts than it gives. Groups that wait for external rewards
    cannot have any."""
    max_tokens: int = Field(default=64, ge=1)
    """The most tokens that the policy writes in one rollout, over all its turns."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """Sampling temperature of training rollouts; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with at least this probability."""
    workflow: str = "single_turn"
    """``single_turn``: the model answers once, in its chat template if ``tasks.chat`` is set; ``chat``: the same, but
    always in its chat template; ``environment``: the model plays an episode of ``environment``;
    ``react``: it calls the tools of ``tools`` and ``mcp`` until it answers without a call; or
    ``package.module:function`` of your own."""
    agent: str | None = None
    """``package.module:function``: an agent that reaches the policy over HTTP, instead of a workflow. It takes the
    keywords ``base_url``, ``api_key`` and ``task``, or some of them, and returns a reward, rewards by name, an Outcome
    or nothing. An ``async def`` function runs in the explorer's event loop, any other in a thread of its own."""
    command: list[str] = []
    """A program and its arguments: an agent that reaches the policy over HTTP, instead of a workflow. It runs in an
    empty folder of its own. An argument that names a file relative to the explorer's folder becomes its full path."""
    command_env: dict[str, str] = {}
    """Environment variables of ``command``, beside those that it needs to reach the policy and ``PATH``, ``HOME`` and
    the like. ``"$NAME"`` takes the value of the explorer's variable NAME: so no secret stands here."""
    command_output_kib: int = Field(default=16, ge=0, le=64)
    """How much of the end of ``command``'s output is kept in the metadata of its experience (``rollout.output``)."""
    deadline_s: float = Field(default=120.0, gt=0)
    """A rollout that takes longer is stopped and tried again."""
    blocking_s: float = Field(default=20.0, gt=0)
    """A workflow that holds up the explorer's event loop for longer, without ``await``, is interrupted: its try
    fails. All other rollouts stand still meanwhile."""
    retries: int = Field(default=2, ge=0, le=20)
    """Further tries of a failed rollout. If all fail, it is published as failed and its group continues without it."""
    environment: str | None = None
    """For ``workflow = "environment"`` and ``tasks.source = "environment"``: the environment, as ``<adapter>:<name>``
    or a class of your own, ``package.module:Class``; see docs/environments.md."""
    environment_options: dict[str, Any] = {}
    """Keyword arguments for the environment."""
    environment_action: str = ""
    """Regular expression. Its last match in a turn is the action: its group, if it has one. By default, and where
    nothing matches, the action is the turn's whole text without thinking."""
    environment_max_turns: int = Field(default=32, ge=1, le=10_000)
    """An episode that is not done after so many turns ends with the rewards that it has."""
    environment_turn_tokens: int | None = Field(default=None, ge=1)
    """Token limit of one turn; by default all that are left of ``max_tokens``."""
    environment_workers: int = Field(default=64, ge=1, le=4096)
    """Most processes with environments of one explorer. Further rollouts wait for one, within ``deadline_s``."""
    environment_spare: int = Field(default=2, ge=0, le=4096)
    """Processes that stand ready for the next rollouts."""
    environment_reset_s: float = Field(default=60.0, gt=0)
    """An environment that takes longer to begin an episode fails its rollout and is replaced."""
    environment_step_s: float = Field(default=60.0, gt=0)
    """An environment that takes longer for one action fails its rollout and is replaced."""
    environment_memory_mb: int | None = Field(default=2048, ge=64)
    """MiB of data that each process of an environment may hold; ``none``: no limit."""
    max_in_flight: int = Field(default=512, ge=1)
    """Number of rollouts that one explorer runs at once."""
    static_membership: bool = False
    """Let an explorer that is back within ``log.session_timeout_ms`` keep its partitions, without a rebalance. Its id
    in the group is its role's name (RFT_ROLE_NAME, which `rft run` sets) and its machine's. Partitions of an explorer
    that is gone for good wait for the session timeout, too."""
    assignment: Literal["cooperative", "eager"] = "cooperative"
    """How partitions change hands when explorers come and go. ``cooperative`` takes only those away that move;
    ``eager`` takes all away from all, as release 0.1 does. All explorers of a group need the same."""
    tools: list[str] = []
    """Python functions that the model may call with ``workflow = "react"``, each as ``package.module:function``."""
    mcp: list[McpConfig] = []
    """MCP servers whose tools the model may call with ``workflow = "react"``."""
    tool_timeout_s: float = Field(default=30.0, gt=0)
    """Deadline of one call of a tool. After it, the model is told so as the tool's answer."""
    tool_answer_chars: int = Field(default=8000, ge=1)
    """Longest answer of a tool, in characters; a longer one is cut, and says so."""
    tool_format: Literal[
        "auto", "hermes", "qwen3_coder", "llama_json", "llama_list", "mistral", "deepseek", "gemma", "none"
    ] = "auto"
    """How the model writes calls of tools. ``auto`` follows from its chat template; ``none`` finds no calls."""
    max_turns: int = Field(default=10, ge=1)
    """Turns of one rollout of ``workflow = "react"``."""

    @field_validator("environment_action")
    @classmethod
    def _is_pattern(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        if groups > 1:
            raise ValueError(f"{pattern!r} has {groups} groups, it may have one; write others as (?:…)")
        return pattern

    @field_validator("tools")
    @classmethod
    def _named_functions(cls, tools: list[str]) -> list[str]:
        for name in tools:
            if not is_plugin(name):
                raise ValueError(f"{name!r} names no function; write {FORM}")
        return tools

    @model_validator(mode="after")
    def _one_way_to_roll_out(self) -> RolloutConfig:
        other = self.workflow != RolloutConfig.model_fields["workflow"].default
        named = {"workflow": other, "agent": self.agent, "command": self.command}
        ways = [f"rollout.{name}" for name, given in named.items() if given]
        if len(ways) > 1:
            raise ValueError(f"set one of {' and '.join(ways)}: each of them rolls tasks out")
        if self.command and not self.command[0]:
            raise ValueError("rollout.command: the program is empty")
        return self
