"""Explorers as processes on a real log: every task gets its experiences, whatever happens to the explorers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rft.config import Config
from rft.log.writer import EventWriter
from schemas.events import Experience
from tests.producers.roles import Log, RoleProcess, announce, issue, task

RoleConfig = Callable[..., Config]
MOODY = "moody_workflows:moody"


@dataclass
class Running:
    """An explorer at work, and the log around it."""

    config: Config
    writer: EventWriter
    log: Log


@pytest.fixture(scope="module")
def running(role_config: RoleConfig, model: Path) -> Iterator[Running]:
    """One explorer for the tests that leave it alive; it holds weight version 0. Each test has its own task numbers."""
    config = role_config(rollout={"workflow": MOODY, "deadline_s": 3.0, "retries": 1, "blocking_s": 3.0})
    with (
        EventWriter(config, "test") as writer,
        Log(config, "experiences", "members") as log,
        RoleProcess("explorer", config),
    ):
        announce(config, writer, model, 0)
        log.wait("members", lambda members: any(m.version == 0 for m in members))
        yield Running(config, writer, log)


def ids(experiences: list[Experience]) -> set[str]:
    return {experience.experience_id for experience in experiences}


def test_failing_and_hanging_rollouts_become_failed_experiences_and_delay_no_other(running: Running) -> None:
    moods = {0: "raise", 1: "hang", 2: "crooked", 3: None, 4: None, 5: None}
    expected = issue(running.writer, [task(number, mood=mood) for number, mood in moods.items()])
    found = running.log.wait("experiences", lambda found: len(found) == len(expected))
    assert ids(found) == expected
    assert [e.number for e in found[-2:]] == [1, 1], "others waited for the hanging rollouts"
    failed = {e.number: e.error for e in found if e.finish_reason == "error"}
    assert failed.keys() == {0, 1, 2}
    assert "2 times; the last time it ValueError: bad mood" in failed[0]
    assert "ran past its deadline of 3 s" in failed[1]
    assert "trajectory is invalid: logprobs holds values that are not finite" in failed[2]


def test_a_workflow_that_blocks_the_loop_or_leaves_fails_and_others_go_on(running: Running) -> None:
    moods = {60: "block", 61: "exit", 62: None}
    expected = issue(running.writer, [task(number, mood=mood) for number, mood in moods.items()])
    found = running.log.wait("experiences", lambda found: ids(found) >= expected)
    failed = {e.number: e.error for e in found if e.number in moods and e.finish_reason == "error"}
    assert failed.keys() == {60, 61}
    assert "LoopBlockedError: blocked the event loop for" in failed[60]
    assert "moody_workflows.py" in failed[60]
    assert "2 times; the last time it SystemExit: bye" in failed[61]


def test_a_task_ahead_of_the_weights_waits_for_them_and_others_go_on(running: Running, model: Path) -> None:
    required = {10: 2, 11: 0, 12: 1}

    def found() -> list[Experience]:
        return [e for e in running.log.read("experiences") if e.number in required]

    issue(running.writer, [task(number, min_version=version) for number, version in required.items()])
    running.log.wait("members", lambda members: members[-1].stats["tasks_awaiting_weights"] == 2)
    assert {e.number for e in found()} == {11}
    announce(running.config, running.writer, model, 1)
    announce(running.config, running.writer, model, 2)
    running.log.wait("experiences", lambda _: len(found()) == 6)
    assert all(e.oldest_version >= required[e.number] for e in found())
    running.log.wait("members", lambda members: members[-1].version == 2)


def test_rollouts_that_a_complete_group_does_not_need_are_cancelled_and_its_task_is_finished(
    role_config: RoleConfig, model: Path
) -> None:
    config = role_config(rollout={"workflow": MOODY, "deadline_s": 60.0})
    with EventWriter(config, "test") as writer, Log(config, "experiences", "members") as log:
        announce(config, writer, model, 0)
        with RoleProcess("explorer", config) as explorer:
            moods = ("straggle", None, "stubborn", "raise")
            issue(writer, [task(number, samples=2, spare=2, mood=mood) for number, mood in enumerate(moods)])
            log.wait("members", lambda members: bool(members) and members[-1].stats["cancelled"] >= 2)
            found = log.wait("experiences", lambda found: {"train-00000002/0"} <= ids(found) and len(found) >= 11)
            # A second for what must not come, and for the commit.
            before = len(log.read("members"))
            members = log.wait("members", lambda members: len(members) > before + 1)
            assert members[-1].stats["running"] == 0
            found = list(log.read("experiences"))
            assert explorer.terminate()[0] == 0
        by_task = {number: [e for e in found if e.number == number] for number in range(4)}
        assert {e.sample for e in by_task[0]} == {1, 3}
        assert len(by_task[1]) + len(by_task[2]) + members[-1].stats["cancelled"] == 2 + 8
        assert 0 in {e.sample for e in by_task[2]}
        assert [e.finish_reason for e in by_task[3]] == ["error"] * 4
        assert all((e.group_size, e.spare) == (4, 2) for e in found)
        with RoleProcess("explorer", config, name="second") as second:
            expected = issue(writer, [task(9)])
            log.wait("experiences", lambda found: ids(found) >= expected)
            assert second.terminate()[0] == 0
        assert len(log.read("experiences")) == len(found) + len(expected), "a finished task was rolled out again"


def test_a_message_that_is_no_task_is_a_dead_letter(running: Running) -> None:
    running.writer.send_bytes("tasks", b"\xc3\x01rubbish", key=b"train-00000020")
    expected = issue(running.writer, [task(20)])  # same key, so it comes after the rubbish
    running.log.wait("experiences", lambda found: ids(found) >= expected)
    with Log(running.config, "dlq") as dead:
        (letter,) = dead.raw("dlq")
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"train-00000020", b"\xc3\x01rubbish")
    assert headers["rft.error.stage"] == b"decode"
    assert headers["rft.error.class"] == b"DecodeError"


def test_a_killed_explorers_tasks_are_rolled_out_by_the_others(
    any_broker: str, role_config: RoleConfig, model: Path
) -> None:
    """Two explorers share the tasks; after ``kill -9`` of one, every experience id is there."""
    config = role_config(any_broker, rollout={"workflow": MOODY, "max_in_flight": 8})
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


def test_a_stopped_explorer_leaves_its_unfinished_tasks_to_the_next(role_config: RoleConfig, model: Path) -> None:
    """SIGTERM ends it well within 30 s, even with hanging rollouts; finished tasks are not rolled out again."""
    config = role_config(rollout={"workflow": MOODY})
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


def test_a_workflow_that_does_not_exist_is_one_clear_line(role_config: RoleConfig) -> None:
    config = role_config(rollout={"workflow": "moody_workflows:absent"})
    with RoleProcess("explorer", config) as explorer:
        assert explorer.process.wait(60) == 2
        output = explorer.log_path.read_text()
    assert output.startswith("rft: rollout.workflow = 'moody_workflows:absent': ")
    assert len(output.splitlines()) == 1
    assert "Traceback" not in output
