"""What becomes of groups that are too stale, on a real log: dropped, kept or waited for."""

import signal
import threading
import time

import pytest
from synthetic import make_tiny_model, publish, scored
from trainer_runs import settings, start_trainer, steps_of, train, trained_ids, versions_of

from consumers.trainer import run
from rft.errors import ConfigError
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from rft.telemetry.activity import role_activity
from schemas.events import Task

SIZE = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def new_run(make_config, tmp_path, model):
    def make(broker, name, buffer, **trainer):
        sections = settings(tmp_path, name, model, **{"groups_per_step": 2} | trainer)
        config = make_config(broker, **sections, buffer=buffer)
        ensure_topics(config)
        return config

    return make


def groups(*numbers, version=0):
    return [scored(number, sample, SIZE, version=version) for number in numbers for sample in range(SIZE)]


def issue(config, *numbers, min_version=0):
    with EventWriter(config, "test") as writer:
        for number in numbers:
            task = Task(
                f"train-{number:08d}", number, "train", "made up", "p", None, SIZE, 8, 1.0, 1.0, 0, min_version, 0, "{}"
            )
            writer.send("tasks", task)


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def in_background():
    """Start a trainer in its own thread and stop it with the test."""
    started = []

    def start(config):
        stop = threading.Event()
        thread = threading.Thread(target=run, args=(config, stop), daemon=True)
        thread.start()
        started.append((thread, stop))
        return thread

    yield start
    for thread, stop in started:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def numbers_of(steps):
    return [sorted({ref.number for ref in step.trained}) for step in steps if step.kind == "step"]


def all_but_the_slowest(config):
    """Publish what a conductor, explorers and processors would: group 0 is missing, all others have come."""
    issue(config, 0, 1, 2, 3)
    issue(config, 4, 5, 6, min_version=1)
    publish(config, groups(1, 2, 3))
    publish(config, groups(4, 5, 6, version=1))


def test_a_step_is_held_for_the_slowest_group_says_so_and_drops_nothing(embedded_broker, new_run, in_background):
    config = new_run(embedded_broker, "held", {"too_stale": "hold"}, steps=3, max_staleness=1)
    all_but_the_slowest(config)
    thread = in_background(config)
    wait_for(lambda: "group 0, too stale after this step (buffer.hold_s = 60)" in role_activity().state().text)
    assert numbers_of(steps_of(config)) == [[1, 2]]
    publish(config, groups(0))
    thread.join(60)
    steps = steps_of(config)
    assert numbers_of(steps) == [[1, 2], [0, 3], [4, 5]]
    assert not any(step.dropped for step in steps)
    assert max(ref.staleness for step in steps for ref in step.trained) == 1
    assert 0 < steps[1].metrics["held_s"] <= steps[1].metrics["idle_s"]
    assert steps[2].metrics["held_s"] == 0


def test_a_held_step_is_taken_after_its_limit_and_the_group_that_comes_later_is_dropped(
    embedded_broker, new_run, in_background
):
    config = new_run(embedded_broker, "limited", {"too_stale": "hold", "hold_s": 0.5}, steps=3, max_staleness=1)
    all_but_the_slowest(config)
    thread = in_background(config)
    thread.join(60)
    assert numbers_of(steps_of(config)) == [[1, 2], [3, 4], [5, 6]]
    more = config.model_copy(update={"trainer": config.trainer.model_copy(update={"steps": 4})})
    publish(more, groups(0) + groups(7, 8, version=3))
    train(more)
    late = [ref for step in steps_of(more) for ref in step.dropped]
    assert [(ref.number, ref.cause, ref.staleness) for ref in late] == [(0, "stale", 3)] * SIZE


def test_a_trainer_killed_while_it_holds_a_step_ends_with_the_weights_of_the_undisturbed_run(embedded_broker, new_run):
    ends = []
    for name, kills in (("undisturbed", 0), ("killed", 2)):
        config = new_run(
            embedded_broker, name, {"too_stale": "hold"}, steps=3, max_staleness=1, checkpoint_interval=100
        )
        all_but_the_slowest(config)
        for _ in range(kills):
            process = start_trainer(config)
            wait_for(lambda config=config: len(steps_of(config)) == 1)
            time.sleep(1.0)
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            assert numbers_of(steps_of(config)) == [[1, 2]]
        process = start_trainer(config)
        wait_for(lambda config=config: len(steps_of(config)) == 1)
        time.sleep(1.0)
        publish(config, groups(0))
        process.join(60)
        assert process.exitcode == 0
        ends.append([(step.step, step.trained, step.dropped, step.digest) for step in steps_of(config)])
        assert numbers_of(steps_of(config)) == [[1, 2], [0, 3], [4, 5]]
    assert ends[0] == ends[1]


def stale_groups(new_run, broker, name, **buffer):
    config = new_run(broker, name, {"too_stale": "keep"} | buffer, steps=6, max_staleness=0, checkpoint_interval=4)
    publish(config, groups(*range(12)))
    return config


KILLS = ("between a step and its weights", "before a step is recorded", "while redoing", "after a checkpoint")


@pytest.mark.timeout(240)
def test_kept_groups_are_trained_and_redone_exactly(embedded_broker, new_run):
    undisturbed = stale_groups(new_run, embedded_broker, "undisturbed")
    train(undisturbed)
    steps = steps_of(undisturbed)
    assert [{ref.staleness for ref in step.trained} for step in steps] == [{0}, {1}, {2}, {3}, {4}, {5}]
    assert not any(step.dropped for step in steps)
    config = stale_groups(new_run, embedded_broker, "killed")
    for kill in KILLS:
        process = start_trainer(config, kill)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, kill
    train(config)
    redone = steps_of(config)
    assert [(s.trained, s.digest) for s in redone] == [(s.trained, s.digest) for s in steps]
    assert [v.sha256 for v in versions_of(config)] == [v.sha256 for v in versions_of(undisturbed)]
    assert set(trained_ids(redone).values()) == {1}


def test_stale_groups_weigh_less_when_they_are_kept(embedded_broker, new_run):
    digests = []
    for name, dual_clip in (("bounded", None), ("unbounded", 1e6)):
        config = new_run(embedded_broker, name, {"too_stale": "keep"}, steps=1, max_staleness=0, learning_rate=1e-2)
        config = config.model_copy(update={"algorithm": config.algorithm.model_copy(update={"dual_clip": dual_clip})})
        # The made-up log-probabilities are below the model's own: ratios exceed 2.
        publish(config, groups(0, 1))
        train(config)
        digests.append(steps_of(config)[0].digest)
    assert digests[0] != digests[1]


def test_a_trainer_that_would_keep_groups_without_a_bound_does_not_start(embedded_broker, new_run):
    config = new_run(embedded_broker, "refused", {"too_stale": "keep"})
    config = config.model_copy(update={"algorithm": config.algorithm.model_copy(update={"name": "gspo"})})
    with pytest.raises(ConfigError, match=r"buffer\.too_stale"):
        train(config)
