"""Tests what the trainer does with the events that it reads, on a real log."""

import logging
import threading
import time

import pytest
from synthetic import make_tiny_model, publish, scored
from trainer_runs import settings, steps_of, train, trained_ids, versions_of

from consumers.trainer import run
from rft.errors import PolicyError
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from rft.policy.loading import load_model
from rft.training.checkpoint import newest_checkpoint
from rft.weights.version_folders import fetch

SIZE = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def new_run(make_config, tmp_path, model):
    def make(broker, name="run", **trainer):
        sections = settings(tmp_path, name, model, **{"steps": 3, "groups_per_step": 2} | trainer)
        config = make_config(broker, **sections)
        ensure_topics(config)
        return config

    return make


def group(number, **changes):
    return [scored(number, sample, SIZE, **changes) for sample in range(SIZE)]


def groups(*numbers, **changes):
    return [event for number in numbers for event in group(number, **changes)]


@pytest.fixture
def in_background():
    """Start a trainer in its own thread and stop it with the test."""
    started = []

    def start(config):
        stop = threading.Event()
        thread = threading.Thread(target=run, args=(config, stop), daemon=True)
        thread.start()
        started.append((thread, stop))
        return thread, stop

    yield start
    for thread, stop in started:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_steps_name_their_events_and_versions_follow_steps(any_broker, new_run):
    config = new_run(any_broker)
    publish(config, groups(*range(6)))
    train(config)
    steps, versions = steps_of(config), versions_of(config)
    ready = {}
    with EventReader(config, "test", ["ready"]) as reader:
        ends = reader.end_offsets()
        while not reader.caught_up(ends):
            ready |= {(e.partition, e.offset): e.record() for e in reader.poll(1.0)}
    for step in steps:
        assert all(
            ready[ref.partition, ref.offset].experience.experience_id == ref.experience_id for ref in step.trained
        )
    assert [s.retired for s in steps] == [(0, 1), (2, 3), (4, 5)]
    assert [(s.version, s.next_version) for s in steps] == [(0, 1), (1, 2), (2, 3)]
    assert [v.sha256 for v in versions[1:]] == [s.digest for s in steps]
    assert [v.created_at >= s.created_at for v, s in zip(versions[1:], steps, strict=True)] == [True] * 3
    assert versions[-1].final
    load_model(fetch(versions[-1], config.run.path), "float32", "cpu")
    load_model(newest_checkpoint(config.run.path, "policy").folder, "float32", "cpu")


def test_the_same_member_published_twice_is_trained_once_and_the_other_recorded(embedded_broker, new_run):
    config = new_run(embedded_broker)
    publish(config, groups(0, 1, 0, 2, 1, 3, 4, 5))
    train(config)
    steps = steps_of(config)
    assert set(trained_ids(steps).values()) == {1}
    assert len(trained_ids(steps)) == 6 * SIZE
    dropped = [ref for step in steps for ref in step.dropped]
    assert sorted(ref.number for ref in dropped) == [0] * SIZE + [1] * SIZE
    assert {ref.cause for ref in dropped} == {"duplicate"}
    assert sum(step.metrics["duplicates"] for step in steps) == 2 * SIZE


def test_nothing_staler_than_allowed_is_trained_and_its_tasks_are_retired_at_once(
    embedded_broker, new_run, in_background
):
    config = new_run(embedded_broker, max_staleness=0, steps=2)
    publish(config, groups(0, 1, 2))
    in_background(config)
    wait_for(lambda: any(s.kind == "retire" for s in steps_of(config)))
    first, retire = steps_of(config)
    assert first.retired == (0, 1)
    assert (retire.kind, retire.retired, retire.step, retire.next_version) == ("retire", (2,), 1, 1)
    assert [(ref.cause, ref.staleness) for ref in retire.dropped] == [("stale", 1)] * SIZE
    publish(config, groups(3, 4, version=1))
    wait_for(lambda: len(versions_of(config)) == 3)
    assert {ref.staleness for step in steps_of(config) for ref in step.trained} == {0}


def test_filtered_members_are_named_but_not_trained(embedded_broker, new_run):
    config = new_run(embedded_broker, steps=1)
    some = [*group(0)[:3], scored(0, 3, SIZE, verdict="filtered", cause="too_long")]
    publish(config, some + group(1, verdict="filtered", cause="uniform") + group(2))
    train(config)
    (step,) = steps_of(config)
    assert step.retired == (0, 1, 2)
    assert {ref.experience_id for ref in step.dropped} == {"train-00000000/3"} | {
        f"train-00000001/{s}" for s in range(SIZE)
    }
    assert {ref.cause for ref in step.dropped} == {"filtered"}


def test_evaluation_is_not_trained_on(embedded_broker, new_run):
    config = new_run(embedded_broker, steps=1)
    publish(config, groups(0, 1, split="eval", group_id="eval-00000000-00000000") + groups(0, 1))
    train(config)
    assert all("train-" in ref.experience_id for step in steps_of(config) for ref in step.trained + step.dropped)
    assert newest_checkpoint(config.run.path, "policy").state.progress["positions"] == {"0": 4 * SIZE}


def test_bytes_that_are_not_an_event_become_a_dead_letter(embedded_broker, new_run):
    config = new_run(embedded_broker, steps=1)
    with EventWriter(config, "test") as writer:
        writer.send_bytes("ready", b"garbage", key=b"k")
    publish(config, groups(0, 1))
    train(config)
    with EventReader(config, "test", ["dlq"]) as reader:
        (letter,) = wait_for(lambda: reader.poll(1.0))
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"k", b"garbage")
    assert (headers["rft.error.stage"], headers["rft.error.offset"]) == (b"decode", b"0")


def test_a_buffer_too_small_for_one_step_learns_the_same(embedded_broker, new_run):
    ample, tiny = new_run(embedded_broker, "ample"), new_run(embedded_broker, "tiny", buffer_mb=0.002)
    for config in (ample, tiny):
        # The members of each group lie far apart.
        publish(config, [scored(number, sample, SIZE) for sample in range(SIZE) for number in range(6)])
        train(config)
    assert [s.digest for s in steps_of(tiny)] == [s.digest for s in steps_of(ample)]
    assert max(s.metrics["buffer_bytes"] for s in steps_of(tiny)) <= 0.002 * 2**20 + 2000


def test_versions_are_announced_every_sync_interval_and_at_the_end(embedded_broker, new_run):
    config = new_run(embedded_broker, steps=5, sync_interval=2)
    publish(config, groups(*range(10)))
    train(config)
    assert [s.version for s in steps_of(config)] == [0, 0, 1, 1, 2]
    assert [(v.version, v.step, v.final) for v in versions_of(config)] == [
        (0, 0, False), (1, 2, False), (2, 4, False), (3, 5, True),
    ]  # fmt: skip
    assert ["logprob_gap_max" in s.metrics for s in steps_of(config)] == [True] + [False] * 4


def test_stopped_while_waiting_it_leaves_a_checkpoint_and_goes_on_from_it(embedded_broker, new_run, in_background):
    config = new_run(embedded_broker, steps=3, checkpoint_interval=100)
    publish(config, groups(*range(4)) + group(5)[:2])
    thread, stop = in_background(config)
    wait_for(lambda: len(versions_of(config)) == 3)
    started = time.monotonic()
    stop.set()
    thread.join(30)
    assert time.monotonic() - started < 5
    state = newest_checkpoint(config.run.path, "policy").state
    assert (state.step, state.progress["positions"]) == (2, {"0": 4 * SIZE})
    publish(config, group(5)[2:] + group(6))
    train(config)
    assert [s.step for s in steps_of(config)] == [1, 2, 3]
    assert set(trained_ids(steps_of(config)).values()) == {1}


def test_a_kl_term_compares_with_the_initial_weights_even_after_a_resume(embedded_broker, make_config, tmp_path, model):
    def make(name):
        config = make_config(
            embedded_broker,
            **settings(tmp_path, name, model, steps=4, groups_per_step=2, checkpoint_interval=2),
            algorithm={"kl": "k3", "kl_coef": 0.5},
        )
        publish(config, groups(*range(8)))
        return config

    straight, halved = make("straight"), make("halved")
    train(straight)
    train(halved.model_copy(update={"trainer": halved.trainer.model_copy(update={"steps": 2})}))
    train(halved)
    assert [s.digest for s in steps_of(halved)] == [s.digest for s in steps_of(straight)]
    assert [s.metrics["kl"] > 0 for s in steps_of(straight)] == [False, True, True, True]


def test_a_full_disk_costs_checkpoints_but_no_steps(embedded_broker, new_run, monkeypatch, caplog):
    config = new_run(embedded_broker, checkpoint_interval=1)
    publish(config, groups(*range(6)))
    config.run.path.mkdir(parents=True)
    (config.run.path / "checkpoints").write_text("a file where the folder should be")
    with caplog.at_level(logging.ERROR):
        train(config)
    assert [s.step for s in steps_of(config)] == [1, 2, 3]
    assert caplog.text.count("cannot write the checkpoint") >= 3
    assert "MiB free" in caplog.text
    (config.run.path / "checkpoints").unlink()
    train(config)
    assert newest_checkpoint(config.run.path, "policy").state.step == 3
    assert [s.step for s in steps_of(config)] == [1, 2, 3]


def test_a_missing_model_is_one_clear_error(embedded_broker, new_run):
    config = new_run(embedded_broker)
    broken = config.model_copy(update={"policy": config.policy.model_copy(update={"model": "/nowhere/model"})})
    with pytest.raises(PolicyError, match="no model folder /nowhere/model"):
        train(broken)


def test_every_promised_metric_is_reported(embedded_broker, new_run):
    config = new_run(embedded_broker, steps=2)
    publish(config, groups(*range(4)))
    train(config)
    optimization = {"loss", "grad_norm", "skipped", "learning_rate", "ratio_mean", "clip_share", "kl", "entropy"}
    data = {"reward_mean", "reward_std", "advantage_abs_mean", "staleness_max", "staleness_mean", "duplicates"}
    amounts = {"tokens", "action_tokens", "groups", "experiences", "buffer_bytes"}
    times = {"idle_s", "read_s", "step_s", "publish_s", "checkpoint_s"}
    promised = optimization | data | amounts | times
    for step in steps_of(config):
        assert promised <= step.metrics.keys()
    assert len(steps_of(config)) == 2
