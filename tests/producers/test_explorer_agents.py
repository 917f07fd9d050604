"""Explorers whose rollouts are agents, as processes on a real log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rft.config import Config
from rft.log.writer import EventWriter
from schemas.turns import turn_starts
from tests.producers.chat_model import check_logprobs
from tests.producers.roles import Log, RoleProcess, announce, issue, task
from tests.producers.test_command_agents import PROGRAM, hanging_pids, wait_until_gone

RoleConfig = Callable[..., Config]


def agent_config(role_config: RoleConfig, chat_model: Path, **rollout: Any) -> Config:
    config = role_config(rollout={"deadline_s": 60.0, "retries": 0, **rollout})
    return config.model_copy(update={"policy": config.policy.model_copy(update={"model": str(chat_model)})})


def test_an_agents_turns_are_published_as_rows(role_config: RoleConfig, chat_model: Path) -> None:
    config = agent_config(role_config, chat_model, agent="agent_functions:two_conversations")
    config = config.model_copy(update={"gateway": config.gateway.model_copy(update={"log_turns": "all"})})
    with (
        EventWriter(config, "test") as writer,
        Log(config, "experiences", "members", "turns") as log,
        RoleProcess("explorer", config) as explorer,
    ):
        announce(config, writer, chat_model, 0)
        issue(writer, [task(number) for number in range(3)])
        found = log.wait("experiences", lambda found: len(found) == 3 * 2 * 2)
        assert explorer.terminate()[0] == 0
        turns = log.wait("turns", lambda turns: len(turns) == sum(turn_starts(e.action_mask).size for e in found))
    written = sorted((e.group_id, *e.tokens[e.action_mask == 1].tolist()) for e in found)
    by_row: dict[tuple[str, int], list[Any]] = {}
    for turn in turns:
        by_row.setdefault((turn.session_id, turn.conversation), [turn.group_id]).extend(turn.tokens.tolist())
    assert sorted(map(tuple, by_row.values())) == written, "for those who watch"
    assert {(e.number, e.sample, e.row, e.rows) for e in found} == {
        (number, sample, row, 2) for number in range(3) for sample in range(2) for row in range(2)
    }
    assert {e.reward for e in found} == {0.5}
    assert {e.error for e in found} == {None}
    check_logprobs(chat_model, found)


def test_a_program_ends_with_its_killed_explorer(role_config: RoleConfig, chat_model: Path, tmp_path: Path) -> None:
    config = agent_config(role_config, chat_model, command=["python", PROGRAM], command_env={"MARKS": str(tmp_path)})
    with EventWriter(config, "test") as writer, Log(config, "experiences", "members") as log:
        with RoleProcess("explorer", config) as explorer:
            announce(config, writer, chat_model, 0)
            issue(writer, [task(0, mood="hang")])
            pids = hanging_pids(tmp_path)
            explorer.kill()
        wait_until_gone(pids)
        assert log.read("experiences") == []


def test_a_programs_output_and_its_failure_are_in_the_experience(role_config: RoleConfig, chat_model: Path) -> None:
    config = agent_config(role_config, chat_model, command=["python", PROGRAM])
    with (
        EventWriter(config, "test") as writer,
        Log(config, "experiences", "members") as log,
        RoleProcess("explorer", config),
    ):
        announce(config, writer, chat_model, 0)
        issue(writer, [task(0), task(1, mood="fail")])
        found = log.wait("experiences", lambda found: len(found) == 4)
    for experience in found:
        if experience.number == 0:
            assert json.loads(experience.metadata)["rollout"]["output"].startswith("answer ")
        else:
            assert "ended with 7" in str(experience.error)
            assert "it was the tool" in str(experience.error)


def test_an_agent_that_does_not_exist_is_one_clear_line(role_config: RoleConfig, chat_model: Path) -> None:
    config = agent_config(role_config, chat_model, agent="agent_functions:absent")
    with RoleProcess("explorer", config) as explorer:
        assert explorer.process.wait(60) == 2
        output = explorer.log_path.read_text()
    assert "rollout.agent = 'agent_functions:absent'" in output
    assert "Traceback" not in output
