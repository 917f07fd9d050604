"""A role that has work and makes no progress ends with its stacks in its log; one that has to wait goes on waiting."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker_outages import OwnNode
from brokers import ConfigMaker
from synthetic import make_tiny_model, scored
from synthetic import publish as publish_scored

from infra.exit_report import EXIT_FILE_VARIABLE, read_exit_report
from rft.config import Config
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from rft.telemetry.health import Health, read_health
from tests.consumers.processors.processor_worker import Worker, committed, publish, wait_for
from tests.consumers.trainer.trainer_runs import settings, steps_of
from tests.producers.roles import announce, task

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]

STALL_S = 5.0
ROLE = """
import os, sys, threading, time
from pathlib import Path
import infra.activity_report, infra.stall_check, rft.telemetry.input_wait
from infra.roles import run_role
from rft.config import Config
from rft.telemetry.stall import StallClock
infra.stall_check.LOOK_EVERY_S, infra.stall_check.TIMER_GRACE_S = 0.2, 2.0
infra.activity_report.WRITE_EVERY_S, infra.activity_report.LOG_EVERY_S = 0.2, 2.0
rft.telemetry.input_wait.LOOK_EVERY_S = 0.5
observe = StallClock.observe
def observe_when_started(clock, now, state):
    # On a busy machine, a start may take longer than the tests allow for a stall.
    if state.kind == "starting":
        clock.excuse(now)
    return observe(clock, now, state)
StallClock.observe = observe_when_started
os.environ[{variable!r}] = {exit_file!r}
sys.path.insert(0, {folder!r})
{more}
sys.exit(run_role({role!r}, Config.model_validate_json(Path(sys.argv[1]).read_text())))
"""

Start = Callable[..., Worker]


@pytest.fixture
def start_role(tmp_path: Path) -> Iterator[Start]:
    """``start_role(config, role, more)`` starts a role as a process; ``more`` is run before."""
    started: list[Worker] = []

    def start(config: Config, role: str, more: str = "") -> Worker:
        config.run.path.mkdir(parents=True, exist_ok=True)
        exit_file = str(tmp_path / "exit.json")
        entry = ROLE.format(
            role=role, more=more, variable=EXIT_FILE_VARIABLE, exit_file=exit_file, folder=str(tmp_path)
        )
        started.append(Worker(config, tmp_path, f"{role}-{len(started)}", entry))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def configured(make_config: ConfigMaker, servers: str, tmp_path: Path, **sections: Any) -> Config:
    sections.setdefault("run", {"name": "run", "folder": str(tmp_path)})
    sections["launcher"] = {"stall_s": STALL_S}
    config = make_config(servers, **{**sections, "log": {"partitions": 1}})
    ensure_topics(config)
    return config


def processor(make_config: ConfigMaker, servers: str, tmp_path: Path, body: str) -> Config:
    """Configure a processor whose reward function has this body, and runs in it without a deadline that counts."""
    code = "\n".join(["import re, time", "def judge(response, answer):", *(f"    {line}" for line in body.split("\n"))])
    (tmp_path / "some_rewards.py").write_text(code)
    rewards = [{"function": "some_rewards:judge"}]
    settings = {"rewards": rewards, "reward_isolation": "none", "reward_deadline_s": 1000}
    return configured(make_config, servers, tmp_path, processor=settings)


def wait_for_end(worker: Worker, timeout_s: float = 120) -> str:
    wait_for(lambda: worker.process.poll() is not None, timeout_s, lambda: worker.log)
    return worker.log


def health_of(config: Config) -> Health | None:
    files = list((config.run.path / "health").glob("*.json"))
    return read_health(files[0]) if files else None


def wait_until_begun(config: Config, worker: Worker) -> None:
    """Wait until the role does no longer start: these tests do not let a start count as a stall."""

    def begun() -> bool:
        assert worker.process.poll() is None, worker.log
        health = health_of(config)
        return health is not None and health.state != "starting"

    wait_for(begun, 120, lambda: worker.log)


def waits_for(config: Config, worker: Worker, text: str) -> Callable[[], bool]:
    """Return a condition: the role says that it has waited for this for some time."""

    def condition() -> bool:
        assert worker.process.poll() is None, worker.log
        health = health_of(config)
        return health is not None and text in (health.waits_for or "") and (health.waits_s or 0) > 1.5 * STALL_S

    return condition


def test_a_processor_whose_reward_hangs_ends_with_the_stack_in_its_log_and_its_event_is_not_lost(
    kafka_broker, make_config, tmp_path, start_role
):
    config = processor(make_config, kafka_broker, tmp_path, "time.sleep(1e6)")
    worker = start_role(config, "processor")
    wait_until_begun(config, worker)
    publish(config, 0)
    log = wait_for_end(worker)
    assert worker.process.returncode == 1
    assert 'some_rewards.py", line 3 in judge' in log
    last = log.splitlines()[-1]
    assert "ERROR processor: StallError: no progress since" in last
    assert "processor handles experiences, partition 0, offset 0, for" in last
    report = read_exit_report(tmp_path / "exit.json", pid=worker.process.pid)
    assert report is not None
    assert report.place == "some_rewards:judge:3"
    assert not report.transient
    assert report.idle_s >= STALL_S
    assert committed(config) == 0
    (tmp_path / "some_rewards.py").write_text("def judge(response, answer): return 1.0")
    second = start_role(config, "processor")
    wait_for(lambda: committed(config) == 4, 120, lambda: second.log)


def test_a_reward_that_never_gives_the_interpreter_back_is_ended_too(kafka_broker, make_config, tmp_path, start_role):
    """No Python thread runs while a regular expression is matched, so the check of Python cannot notice it."""
    config = processor(make_config, kafka_broker, tmp_path, "re.match(r'(a+)+$', 'a' * 60 + 'b')\nreturn 0.0")
    worker = start_role(config, "processor")
    wait_until_begun(config, worker)
    publish(config, 0)
    log = wait_for_end(worker)
    assert worker.process.returncode == 1
    assert "Timeout (0:00:07)!" in log
    assert 'some_rewards.py", line 3 in judge' in log
    assert committed(config) == 0


def test_a_loop_that_awaits_for_good_ends_with_the_place_where_it_awaits(
    kafka_broker, make_config, tmp_path, start_role
):
    config = configured(make_config, kafka_broker, tmp_path)
    hang = (
        "import asyncio\nfrom consumers.processors.shell import Shell\n"
        "from rft.telemetry.activity import role_activity\n"
        "async def hangs_for_good(self):\n"
        "    if role_activity().state().kind != 'starting': await asyncio.Event().wait()\n"
        "Shell.commit = hangs_for_good\n"
    )
    worker = start_role(config, "processor", hang)
    log = wait_for_end(worker)
    assert worker.process.returncode == 1
    assert "> hangs_for_good (" in log
    assert "StallError: no progress since" in log.splitlines()[-1]


def test_a_reader_that_brings_nothing_although_events_are_there_ends_its_role(
    kafka_broker, make_config, tmp_path, start_role
):
    config = configured(
        make_config,
        kafka_broker,
        tmp_path,
        **settings(tmp_path, "run", make_tiny_model(tmp_path / "model"), groups_per_step=1),
    )
    publish_scored(config, [scored(0, 0, 4)])
    silent = (
        "from consumers.trainer.ready_reader import ReadyReader\n"
        "ReadyReader.poll = lambda self, timeout_s: time.sleep(timeout_s) or []\n"
    )
    log = wait_for_end(start_role(config, "trainer", silent))
    assert "events that are on the log and do not come" in log.splitlines()[-1]


def test_a_trainer_waits_for_a_batch_and_for_the_broker_and_goes_on(make_config, tmp_path, start_role):
    node = OwnNode(tmp_path / "node")
    try:
        config = configured(
            make_config,
            node.servers,
            tmp_path,
            **settings(tmp_path, "run", make_tiny_model(tmp_path / "model"), groups_per_step=1, steps=1),
        )
        publish_scored(config, [scored(7, 0, 4)])
        worker = start_role(config, "trainer")
        wait_for(waits_for(config, worker, "a batch: has 0 of 1 groups; group 7 lack"), 120, lambda: worker.log)
        with node.away():
            wait_for(waits_for(config, worker, "the broker: cannot "), 120, lambda: worker.log)
            assert not health_of(config).ready
        publish_scored(config, [scored(7, sample, 4) for sample in range(1, 4)])
        assert worker.process.wait(120) == 0, worker.log
        assert [step.step for step in steps_of(config) if step.kind == "step"] == [1]
        assert "waits for a batch: has 0 of 1 groups; group 7 lack" in worker.log
        assert "StallError" not in worker.log
    finally:
        node.stop()


def test_an_explorer_waits_for_weights_and_for_tasks(kafka_broker, make_config, tmp_path, start_role):
    model = make_tiny_model(tmp_path / "model")
    config = configured(make_config, kafka_broker, tmp_path, policy={"model": str(model), "device": "cpu"})
    worker = start_role(config, "explorer")
    wait_for(waits_for(config, worker, "the first weight version"), 120, lambda: worker.log)
    with EventWriter(config, "test") as writer:
        announce(config, writer, model, 0)
        wait_for(waits_for(config, worker, "tasks"), 120, lambda: worker.log)
        writer.send("tasks", task(0, min_version=3))
        writer.flush()
        wait_for(waits_for(config, worker, "weight version 3, which"), 120, lambda: worker.log)
    health = health_of(config)
    assert health is not None
    with urllib.request.urlopen(f"{health.url}/readyz", timeout=5) as answer:
        assert json.load(answer)["waits_for"].startswith("weight version 3")
    assert worker.stop() == 0, worker.log


def test_a_processor_waits_for_the_rest_of_a_group_and_for_rewards(kafka_broker, make_config, tmp_path, start_role):
    external = {"required": ["human"], "deadline_s": 600.0}
    config = configured(make_config, kafka_broker, tmp_path, processor={"external": external})
    publish(config, 41)
    worker = start_role(config, "processor")
    wait_for(waits_for(config, worker, "rewards or samples of group train-00000041"), 120, lambda: worker.log)
    assert "waits for rewards or samples of group train-00000041" in worker.log
    assert worker.stop() == 0, worker.log


def test_a_conductor_names_the_groups_that_it_waits_for(kafka_broker, make_config, tmp_path, start_role):
    model = make_tiny_model(tmp_path / "model")
    config = configured(
        make_config,
        kafka_broker,
        tmp_path,
        policy={"model": str(model)},
        tasks={"source": "reasoning_gym:spell_backward", "prompt_template": "{word}>"},
        trainer={"steps": 2, "groups_per_step": 2, "max_staleness": 0},
        eval={"tasks": 0},
    )
    worker = start_role(config, "conductor")
    wait_for(waits_for(config, worker, "the first weight version"), 120, lambda: worker.log)
    with EventWriter(config, "test") as writer:
        announce(config, writer, model, 0)
    wait_for(waits_for(config, worker, "groups 0, 1, issued and not retired"), 120, lambda: worker.log)
    time.sleep(STALL_S)
    assert worker.process.poll() is None
