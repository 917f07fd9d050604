"""Explorers as processes on a real log: whatever happens to them, every task gets its experiences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rft.config import Config
from rft.log.events import EventWriter
from schemas.events import Experience
from tests.producers.roles import Log, RoleProcess, announce, issue, task

RoleConfig = Callable[..., Config]
MOODY = "moody_workflows:moody"


def ids(experiences: list[Experience]) -> set[str]:
    return {experience.experience_id for experience in experiences}


def test_a_killed_explorers_tasks_are_rolled_out_by_the_others(role_config: RoleConfig, model: Path) -> None:
    """Two explorers share the tasks; after ``kill -9`` of one, every experience id is there."""
    config = role_config(rollout={"workflow": MOODY, "max_in_flight": 8})
    with (
        EventWriter(config, "test") as writer,
        Log(config, "experiences", "members") as log,
        RoleProcess("explorer", config, name="first") as first,
        RoleProcess("explorer", config, name="second") as second,
    ):
        announce(config, writer, model, 0)
        log.wait("members", lambda members: len({m.member_id for m in members if m.version == 0}) == 2)
        expected = issue(writer, [task(number, mood="slow") for number in range(200)])
        log.wait("experiences", lambda found: len({e.source for e in found}) == 2)
        first.kill()
        found = log.wait("experiences", lambda found: ids(found) >= expected)
        assert ids(found) == expected
        assert second.terminate()[0] == 0
    assert {version for e in found for version in e.versions[e.action_mask == 1]} == {0}
    assert len(found) < 1.5 * len(expected), "finished tasks were not committed"


def test_failing_and_hanging_rollouts_become_failed_members_and_delay_nobody(
    role_config: RoleConfig, model: Path
) -> None:
    config = role_config(rollout={"workflow": MOODY, "deadline_s": 3.0, "retries": 1})
    moods = {0: "raise", 1: "hang", 2: "crooked", 3: None, 4: None, 5: None}
    with (
        EventWriter(config, "test") as writer,
        Log(config, "experiences", "members") as log,
        RoleProcess("explorer", config) as explorer,
    ):
        announce(config, writer, model, 0)
        log.wait("members", lambda members: any(m.version == 0 for m in members))
        expected = issue(writer, [task(number, mood=mood) for number, mood in moods.items()])
        found = log.wait("experiences", lambda found: len(found) == len(expected))
        explorer.terminate()
    assert ids(found) == expected
    assert [e.number for e in found[-2:]] == [1, 1], "others waited for the hanging rollouts"
    failed = {e.number: e.error for e in found if e.finish_reason == "error"}
    assert failed.keys() == {0, 1, 2}
    assert "2 times; the last time it ValueError: bad mood" in failed[0]
    assert "ran past its deadline of 3 s" in failed[1]
    assert "cannot be published: logprobs" in failed[2]


def test_a_stopped_explorer_leaves_its_unfinished_tasks_to_the_next(role_config: RoleConfig, model: Path) -> None:
    """SIGTERM ends it well within 30 s, hanging rollouts or not; finished tasks are not done again."""
    config = role_config(rollout={"workflow": MOODY, "max_in_flight": 1000})
    done, hanging = [task(number) for number in range(20)], [task(number, mood="hang") for number in range(20, 24)]
    with EventWriter(config, "test") as writer, Log(config, "experiences", "members") as log:
        announce(config, writer, model, 0)
        expected = issue(writer, done)
        with RoleProcess("explorer", config) as explorer:
            log.wait("experiences", lambda found: ids(found) == expected)
            issue(writer, hanging)
            log.wait("members", lambda members: bool(members) and members[-1].stats["running"] == 8)
            code, seconds = explorer.terminate()
        assert (code, seconds < 15) == (0, True)
        assert log.wait("members", lambda members: members[-1].state == "left")[-1].version == 0
        with RoleProcess("explorer", config, name="second") as second:
            log.wait("members", lambda members: members[-1].stats["running"] == 8)
            second.terminate()
        assert len(log.read("experiences")) == len(expected)


def test_a_task_ahead_of_the_weights_waits_for_them_and_others_go_on(role_config: RoleConfig, model: Path) -> None:
    config = role_config()
    with (
        EventWriter(config, "test") as writer,
        Log(config, "experiences", "members") as log,
        RoleProcess("explorer", config) as explorer,
    ):
        issue(writer, [task(0, min_version=2), task(1), task(2, min_version=1)])
        log.wait("members", lambda members: bool(members) and members[-1].stats["tasks_awaiting_weights"] == 3)
        announce(config, writer, model, 0)
        found = log.wait("experiences", lambda found: len(found) == 2)
        assert {e.number for e in found} == {1}
        announce(config, writer, model, 1)
        announce(config, writer, model, 2)
        found = log.wait("experiences", lambda found: len(found) == 6)
        explorer.terminate()
    for experience in found:
        asked = {0: 2, 1: 0, 2: 1}[experience.number]
        assert experience.oldest_version >= asked


def test_a_message_that_is_no_task_is_a_dead_letter(role_config: RoleConfig, model: Path) -> None:
    config = role_config()
    with (
        EventWriter(config, "test") as writer,
        Log(config, "experiences") as log,
        RoleProcess("explorer", config) as explorer,
    ):
        announce(config, writer, model, 0)
        writer.send_bytes("tasks", b"\xc3\x01rubbish", key=b"train-00000000")
        expected = issue(writer, [task(0)])
        log.wait("experiences", lambda found: ids(found) == expected)
        explorer.terminate()
    with Log(config, "dlq") as dead:
        letter = dead.raw("dlq")[0]
    headers = dict(letter.headers)
    assert letter.value == b"\xc3\x01rubbish"
    assert headers["rft.error.stage"] == b"explorer"
    assert headers["rft.error.class"] == b"DecodeError"


@pytest.mark.parametrize("wrong", ["no_such_workflow", "moody_workflows:absent"])
def test_a_workflow_that_does_not_exist_is_one_clear_line(role_config: RoleConfig, wrong: str) -> None:
    config = role_config(rollout={"workflow": wrong})
    with RoleProcess("explorer", config) as explorer:
        assert explorer.process.wait(60) == 2
        output = explorer.log_path.read_text()
    assert "ConfigError" in output
    assert wrong.partition(":")[2] in output
    assert "Traceback" not in output
