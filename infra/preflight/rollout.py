"""Checks how tasks become rollouts: the workflow or agent, its tools and its environment."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.config import Config
from rft.environments.opening import ADAPTERS, FIELD
from rft.errors import ConfigError
from rft.plugins import is_plugin, resolve, unknown_name

GROUP_ADVANTAGES = {"group_normalized", "group_centered", "leave_one_out", "log_mean_exp", "gigpo", "turn_normalized"}
"""Advantages that compare the samples of a group."""


def rollout(facts: Facts) -> Iterator[Finding]:
    """Find a workflow, agent, tool or environment that cannot be used, and settings that nothing reads."""
    config = facts.config
    yield from _unread(config)
    settings = config.rollout
    if settings.command:
        _program(settings.command[0], "rollout.command")
    elif settings.agent:
        from producers.explorer.function_agent import FunctionAgent

        FunctionAgent(settings.agent)
    else:
        from rft.workflows.base import open_workflow

        open_workflow(settings)
    if (settings.command or settings.agent) and (find_spec("starlette") is None or find_spec("uvicorn") is None):
        raise ConfigError("an agent reaches the policy over HTTP, which needs: pip install 'stream-rft[gateway]'")
    if settings.environment is not None:
        _environment(settings.environment)
    for number, server in enumerate(settings.mcp):
        if server.command:
            _program(server.command[0], f"rollout.mcp[{number}].command")
    way = settings.agent or (settings.command[0] if settings.command else settings.workflow)
    yield Finding("ok", f"rollouts by {way}")


def group_size(facts: Facts) -> Iterator[Finding]:
    """Find groups that are too small to be compared, or to be kept."""
    config, samples = facts.config, facts.config.rollout.samples
    if config.run.mode != "online":
        return
    if samples < config.processor.min_group_size:
        raise ConfigError(
            f"rollout.samples = {samples} is below processor.min_group_size = {config.processor.min_group_size}, so "
            "every group would be filtered: raise rollout.samples (8 is usual)"
            + (", or lower processor.min_group_size" if samples > 1 else "")
        )
    from rft.algorithms.presets import find_preset

    for own in facts.trainers:
        advantage = own.algorithm.advantage or find_preset(own.algorithm.name).advantage
        if samples == 1 and advantage in GROUP_ADVANTAGES:
            raise ConfigError(
                f"rollout.samples = 1, but {own.algorithm.name} compares the samples of a group ({advantage}), so "
                "every advantage would be 0: raise rollout.samples (8 is usual), or use algorithm.name = 'ppo' or "
                "'reinforce_pp'"
            )
    yield Finding("ok", f"groups of {samples} samples")


def _unread(config: Config) -> Iterator[Finding]:
    """Find settings that the chosen workflow does not read: a user's workflow may not, a shipped one does not."""
    settings = config.rollout
    own = is_plugin(settings.workflow) or bool(settings.agent) or bool(settings.command)
    tools = [f"rollout.{name}" for name in ("tools", "mcp") if getattr(settings, name)]
    if tools and settings.workflow != "react":
        text = (
            f'{" and ".join(tools)} {"is" if len(tools) == 1 else "are"} set, but only rollout.workflow = "react" reads'
        )
        yield _refuse_or_warn(
            own, f"{text} {'it' if len(tools) == 1 else 'them'}", 'set rollout.workflow = "react"', tools
        )
    plays = settings.workflow == "environment"
    if config.tasks.source == "environment" and not plays:
        yield _refuse_or_warn(
            own,
            'tasks.source = "environment" gives seeds of an environment, but rollout.workflow = '
            f'"{settings.workflow}" plays none',
            'set rollout.workflow = "environment"',
            ["tasks.source"],
        )
    elif settings.environment is not None and not plays:
        yield Finding(
            "warn",
            f"rollout.environment is set, but rollout.workflow is {settings.workflow!r}",
            'set rollout.workflow = "environment", or remove rollout.environment',
        )
    if config.tasks.system_prompt is not None and not config.tasks.chat:
        yield Finding(
            "warn",
            "tasks.system_prompt is set, but only tasks.chat = true reads it",
            "set tasks.chat = true, or remove it",
        )


def _refuse_or_warn(own: bool, what: str, advice: str, settings: list[str]) -> Finding:
    return Finding("warn" if own else "fail", what, f"{advice}, or remove {' and '.join(settings)}")


def _environment(name: str) -> None:
    kind, colon, _ = name.partition(":")
    if colon and kind in ADAPTERS:
        package = ADAPTERS[kind][1]
        module = {"openenv-core": "openenv"}.get(package, package.replace("-", "_"))
        if find_spec(module) is None:
            raise ConfigError(f"{FIELD} = {name!r} needs {module}; install it: pip install {package}")
    elif is_plugin(name):
        resolve(FIELD, name, {})
    else:
        raise ConfigError(
            f"{FIELD} = {unknown_name(name, [*(f'{one}:<name>' for one in ADAPTERS), 'package.module:Class'])}"
        )


def _program(program: str, setting: str) -> None:
    if shutil.which(program) is None and not Path(program).is_file():
        raise ConfigError(f"{setting}: there is no program {program!r}; install it, or give its full path")
