"""A run waits for a broker that is away for longer than its roles' periodic checks, and uses up no restarts."""

import time

import pytest
from accounts import discrepancies
from broker_outages import OwnNode
from pipeline import ROLES, Pipeline, read_log, settings

from rft.log.reader import EventReader

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(400)]

OUTAGE_S = 15.0
"""The trainer looks every 5 s whether another has claimed its redo log, and the launcher tries a start for 4 s."""


@pytest.fixture
def node(tmp_path):
    node = OwnNode(tmp_path / "node")
    yield node
    node.stop()


def test_all_roles_wait_through_outages_and_none_is_started_again(pipeline, tmp_path, tiny_model, node):
    run = pipeline(
        settings(
            tmp_path, tiny_model, node.servers,
            trainer={"steps": 40, "groups_per_step": 4, "learning_rate": 1e-3, "checkpoint_interval": 20},
            launcher={"restart_limit": 0},
            processor={"group_deadline_s": 120},  # an outage must not make groups incomplete
            archive={"enabled": True},
            trackers={"use": ["jsonl"]},
        )
    )  # fmt: skip
    for step in (3, 12):
        wait_for_step(run, step)
        before = {name: [process.pid for process in run.role(name)] for name in (*ROLES, "archiver", "tracker")}
        assert all(before.values()), before
        with node.away():
            time.sleep(OUTAGE_S)
            assert is_running(run), run.tail()
        after = {name: [process.pid for process in run.role(name)] for name in before}
        assert after == before, run.tail()
    assert run.wait(200) == 0, run.tail()
    found = discrepancies(read_log(run.config), steps=40)
    assert not found, f"{found}\n{run.tail()}"
    logs = run.config.run.path / "logs"
    assert "waits for the broker since" in (logs / "trainer.log").read_text()


def test_a_role_that_is_started_during_an_outage_waits_too(pipeline, tmp_path, tiny_model, node):
    run = pipeline(
        settings(
            tmp_path, tiny_model, node.servers,
            trainer={"steps": 20, "groups_per_step": 4, "learning_rate": 1e-3, "checkpoint_interval": 5},
            launcher={"restart_limit": 1},
            processor={"group_deadline_s": 120},
        )
    )  # fmt: skip
    wait_for_step(run, 3)
    with node.away():
        for name in ("trainer", "conductor"):
            run.kill(name)  # the one restart that is allowed
        time.sleep(OUTAGE_S)
        assert is_running(run), run.tail()
    assert run.wait(200) == 0, run.tail()
    assert discrepancies(read_log(run.config), steps=20) == []
    assert "found the broker away" in run.output.read_text()


def is_running(run: Pipeline) -> bool:
    return run.process is not None and run.process.poll() is None


def wait_for_step(run: Pipeline, number: int) -> None:
    run.wait_until(lambda: bool(run.role("trainer")), 60, "trainer")
    newest = 0

    def reached() -> bool:
        nonlocal newest
        for event in reader.poll(0.2):
            newest = max(newest, event.record().step)
        return newest >= number

    with EventReader(run.config, "e2e-steps", ["steps"]) as reader:
        run.wait_until(reached, 120, f"step {number}")
