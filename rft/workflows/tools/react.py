"""The workflow ``react``: the policy answers, or calls tools and reads their answers, until it calls none."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter

from rft.config import RolloutConfig
from rft.errors import ConfigError, TokenBudgetError
from rft.workflows.conversation import Conversation, Turn
from rft.workflows.messages import ToolCall
from rft.workflows.rollout import Outcome
from rft.workflows.tools.base import ToolSet
from rft.workflows.tools.descriptions import describe_tools
from rft.workflows.tools.execution import run_calls
from rft.workflows.tools.formats.parsers import choose_format, find_parser
from rft.workflows.tools.opening import configured_tools
from schemas.events import Task

ANSWERED, MAX_TURNS, MAX_TOKENS = "answered", "max_turns", "max_tokens"
"""How a rollout ended."""
UNREADABLE = "unreadable"
"""Name of the tool that answers a call which could not be read."""


class ReactWorkflow:
    """Runs rollouts with tools. MCP servers start with the first one; close it on the event loop that used it."""

    def __init__(self, config: RolloutConfig) -> None:
        """Load the functions. Raises ConfigError if the tools cannot be used, or there are none."""
        if not config.tools and not config.mcp:
            raise ConfigError('rollout.workflow = "react" needs tools: set rollout.tools or rollout.mcp')
        self._config = config
        self._tools = configured_tools(config)
        self._opening: asyncio.Future[ToolSet] | None = None

    async def __call__(self, task: Task, conversation: Conversation) -> Outcome:
        """Run one rollout. Raises ConfigError if a server cannot be started or the format of calls is not known."""
        tools = await self._open()
        format_name = choose_format(self._config.tool_format, conversation.template)
        conversation.parse = find_parser(format_name)
        conversation.tools = [*conversation.tools, *tools.schemas]
        if not conversation.messages:
            told = "tools" in conversation.template
            conversation.user(task.prompt if told else f"{describe_tools(tools.schemas, format_name)}\n\n{task.prompt}")
        counts: Counter[str] = Counter()
        ended = await self._talk(conversation, tools, counts, format_name)
        return Outcome(
            metadata={
                "turns": len(conversation.turns),
                "tool_calls": counts["calls"],
                "failed_calls": counts["failed"],
                "ended": ended,
            }
        )

    async def start(self) -> None:
        """Start the MCP servers. Raises ConfigError if one cannot be used."""
        await self._open()

    async def close(self) -> None:
        """End the sessions with MCP servers, and the programs that were started for them."""
        self._opening = None
        await self._tools.close()

    async def _open(self) -> ToolSet:
        opening = self._opening
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._opening = asyncio.ensure_future(self._tools.__aenter__())
        return await asyncio.shield(opening)

    async def _talk(self, conversation: Conversation, tools: ToolSet, counts: Counter[str], format_name: str) -> str:
        """Let the policy write turns. Return how it ended."""
        for number in range(self._config.max_turns):
            try:
                turn = await conversation.generate()
            except TokenBudgetError:
                if not conversation.turns:
                    raise
                return MAX_TOKENS
            if not turn.reply.tool_calls and not turn.reply.faults:
                return ANSWERED if turn.finish_reason == "stop" else MAX_TOKENS
            if number + 1 == self._config.max_turns:
                break  # nobody would read the answers
            answers = await _answers(turn, tools, counts)
            if format_name == "gemma":  # its template knows no answers of tools
                conversation.user("\n".join(f"```tool_output\n{text}\n```" for _, text in answers))
            else:
                for call, text in answers:
                    conversation.tool(call, text)
        return MAX_TURNS


async def _answers(turn: Turn, tools: ToolSet, counts: Counter[str]) -> list[tuple[ToolCall, str]]:
    """Make the calls of a turn. Return their answers, and what is wrong with those that could not be read."""
    answers = await run_calls(tools, turn.reply.tool_calls)
    faults = turn.reply.faults
    counts["calls"] += len(answers) + len(faults)
    counts["failed"] += sum(answer.failed for answer in answers) + len(faults)
    unreadable = [(ToolCall(_id(turn.index, number), UNREADABLE, {}), fault) for number, fault in enumerate(faults)]
    return [*((answer.call, answer.text) for answer in answers), *unreadable]


def _id(turn: int, number: int) -> str:
    return hashlib.blake2b(f"{turn}/{number}".encode()).hexdigest()[:9]
