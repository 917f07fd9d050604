"""Rolls a task out with an agent that reaches the policy over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from producers.explorer.command_agent import CommandAgent
from producers.explorer.function_agent import FunctionAgent
from producers.gateway.open_session import OpenSession
from rft.config import Config, RolloutConfig
from rft.errors import ConfigError, RolloutError
from rft.log.writer import EventWriter
from rft.plugins import USER_FAILURES
from rft.policy.base import Policy, Sampling
from rft.workflows.rollout import Outcome, Rollout, as_outcome
from schemas.events import Task

if TYPE_CHECKING:
    from producers.gateway.rollout_gateway import RolloutGateway


class Agent(Protocol):
    """Does a task by asking the policy over HTTP."""

    async def run(self, task: Task, session: OpenSession) -> object:
        """Return what :func:`rft.workflows.rollout.as_outcome` takes. An exception fails this try of this rollout."""
        ...


def find_agent(config: RolloutConfig) -> Agent | None:
    """Return the agent that the configuration names, None if it names none. Raises ConfigError."""
    if config.command:
        return CommandAgent(config)
    return FunctionAgent(config.agent) if config.agent else None


def open_agents(config: Config, policy: Policy, writer: EventWriter) -> AgentRollouts | None:
    """Return what rolls tasks out if the configuration names an agent; None if it names a workflow.

    ``writer`` publishes the agents' turns if the configuration says so.

    Raises ConfigError.
    """
    agent = find_agent(config.rollout)
    if agent is None:
        return None
    try:
        from producers.gateway.rollout_gateway import RolloutGateway  # needs the extra `gateway`
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"rollout.agent and rollout.command need the package {error.name!r}: pip install 'stream-rft[gateway]'"
        ) from error
    turn_writer = writer if config.gateway.log_turns == "all" else None
    gateway = RolloutGateway(config.gateway, policy, config.trainer.model_key, config.rollout.tool_format, turn_writer)
    return AgentRollouts(agent, gateway)


class AgentRollouts:
    """Is a workflow that lets an agent do the task."""

    def __init__(self, agent: Agent, gateway: RolloutGateway) -> None:
        """``gateway`` serves the policy to the agent. It is started and closed here."""
        self._agent = agent
        self._gateway = gateway
        gateway.start()

    @property
    def error(self) -> Exception | None:
        """The error that ended the gateway, if it was not ``close``."""
        return self._gateway.error

    def close(self) -> None:
        """End the gateway."""
        self._gateway.close()

    async def __call__(self, task: Task, policy: Policy, sampling: Sampling) -> Rollout:
        """Return what the policy wrote for the agent.

        An agent that fails because no token was left is cut, and has not failed: its reward functions see how far it
        came. Raises what the agent raises, and RolloutError if the policy wrote nothing.
        """
        returned: object = None
        failure: BaseException | None = None
        async with self._gateway.session(task, policy, sampling) as opened:
            try:
                returned = await self._agent.run(task, opened)
            except USER_FAILURES as error:
                failure = error
        session = opened.session
        if session.engine_error:
            raise session.engine_error
        if failure and not (session.cut and session.turns):
            raise failure
        if not session.turns:
            raise RolloutError(
                "the agent ended without a turn of the policy: it must use the base URL that it is given"
            )
        outcome = Outcome() if failure else as_outcome(returned)
        return session.rollout(outcome, cut=failure is not None)
