"""The loop: explorer → experiences → processor → ready → trainer → weights → explorer, each a process."""

import json
import math

import pytest
from brokers import require_kafka_home
from pipeline import Log, Pipeline, read_log, settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from consumers.audit import audit
from consumers.lineage import trace_weights
from rft.log.opening import open_log

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def check_report(report: dict, steps: int) -> None:
    assert report["finished"] is True
    assert report["steps"] == steps
    assert report["accuracy"]["tasks"] == 40
    assert 0 <= report["accuracy"]["before"] <= 1
    assert 0 <= report["accuracy"]["after"] <= 1
    experiences = report["experiences"]
    assert experiences["published"] >= experiences["ready"] >= experiences["trained"] >= steps * 4 * 2
    assert experiences["dead_lettered"] == 0
    assert 0 <= report["staleness"]["mean"] <= report["staleness"]["max"] <= 1
    assert 0 <= report["trainer"]["idle_share"] <= 1
    assert report["trainer"]["step_s"] > 0
    assert report["throughput"]["experiences_per_s"] > 0
    assert report["wall_s"] > 0
    assert report["broker"]
    assert {"torch", "transformers", "kafka-python", "faust-streaming", "fastavro"} <= set(report["versions"])


def check_every_experience_went_through_the_log(log: Log) -> None:
    published = {experience.experience_id: experience for experience in log.experiences}
    trained = [ref for step in log.lineage for ref in step.trained]
    assert trained
    for ref in trained:
        scored = log.ready[ref.partition, ref.offset]
        assert scored.experience.experience_id == ref.experience_id
        assert scored.experience == published[ref.experience_id]
    announced = [weights.version for weights in log.weights]
    assert announced == sorted(set(announced))
    check_the_announced_weights_are_the_steps_weights(log)
    assert max(scored.experience.oldest_version for scored in log.ready.values()) == announced[-1]


def check_the_archive_balances(run: Pipeline) -> None:
    """The embedded broker has ended; the archive holds its whole log."""
    with open_log(run.config) as view:
        audited = audit(run.config, view)
        weights = trace_weights(run.config, view, run.report["steps"])
    assert audited.ok, audited.problems
    experiences = run.report["experiences"]
    assert audited.published.published == experiences["published"]
    assert audited.trained[0].trained == weights.total_experiences == experiences["trained"]
    assert weights.weights.final


def check_the_announced_weights_are_the_steps_weights(log: Log) -> None:
    sha256 = {weights.version: weights.sha256 for weights in log.weights}
    digest = sha256[0]
    for step in log.lineage:
        # If all groups of a step are uniform, there is no gradient, and the weights stay.
        assert (step.digest != digest) == (step.metrics["grad_norm"] > 0)
        digest = step.digest
        assert sha256[step.next_version] == digest
    assert digest != sha256[0]


def check_the_sets(report: dict, versions: set[int]) -> None:
    """One held-out set is sampled greedily, the other with four samples per task."""
    found = {(one["set"], one["version"]): one for one in report["evaluations"]}
    assert set(found) == {(name, version) for name in ("held_out", "drawn") for version in versions}
    for (name, _), one in found.items():
        assert one["answers"] == one["tasks"] * (4 if name == "drawn" else 1)
        assert one["tasks"] == (10 if name == "drawn" else 40)
        shares = list(one["pass_at"].values())
        assert shares == sorted(shares)
        assert list(one["pass_at"]) == (["1", "2", "4"] if name == "drawn" else ["1"])


def check_the_trackers(run: Pipeline) -> None:
    """Two trackers got every step. The third could not be reached, which stopped no one."""
    folder = run.config.run.path / "trackers"
    run_info, *points = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert run_info["run"] == "test"
    rewards = {point["step"]: point["train/reward_mean"] for point in points if "train/reward_mean" in point}
    assert sorted(rewards) == list(range(1, 13))
    shown = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {one.step: one.value for one in shown.Scalars("train/reward_mean")} == pytest.approx(rewards)
    assert "mlflow" in (run.config.run.path / "logs" / "tracker.log").read_text()


def test_one_command_runs_the_loop_on_the_embedded_broker(pipeline, tmp_path, tiny_model):
    run = pipeline(
        settings(
            tmp_path, tiny_model,
            eval={"tasks": 40, "sets": {"drawn": {"tasks": 10, "samples": 4, "temperature": 1.0}}},
            trackers={"use": ["jsonl", "tensorboard", "mlflow"], "mlflow_uri": "http://127.0.0.1:9"},
        )
    )  # fmt: skip
    assert run.wait(180) == 0, run.tail()
    check_report(run.report, steps=12)
    check_the_sets(run.report, {0, 12})
    check_the_trackers(run)
    page = (run.config.run.path / "report.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    check_the_archive_balances(run)


@pytest.mark.kafka
def test_one_command_runs_the_loop_on_apache_kafka(pipeline, tmp_path, tiny_model):
    run = pipeline(settings(tmp_path, tiny_model, broker={"kind": "kafka", "kafka_home": require_kafka_home()}))
    assert run.wait(200) == 0, run.tail()
    check_report(run.report, steps=12)


@pytest.mark.kafka
@pytest.mark.parametrize("max_staleness", [0, 1, 4])
def test_no_trained_token_is_staler_than_the_bound(pipeline, tmp_path, tiny_model, kafka_broker, max_staleness):
    """The steps name the events, and the events carry each token's version: staleness is recomputed from them."""
    run = pipeline(
        settings(tmp_path, tiny_model, kafka_broker, trainer={
            "steps": 10, "groups_per_step": 4, "learning_rate": 1e-3, "max_staleness": max_staleness,
        })
    )  # fmt: skip
    assert run.wait(180) == 0, run.tail()
    log = read_log(run.config)
    check_every_experience_went_through_the_log(log)
    assert [step.step for step in log.lineage] == list(range(1, 11))
    worst = -math.inf
    for step in log.lineage:
        assert step.trained
        for ref in step.trained:
            experience = log.ready[ref.partition, ref.offset].experience
            written = experience.versions[experience.action_mask == 1]
            assert step.version - int(written.min()) == ref.staleness
            worst = max(worst, step.version - int(written.min()))
            if max_staleness == 0:
                assert set(written.tolist()) == {step.version}
    assert worst <= max_staleness
    assert sum(task.split == "train" for task in log.tasks) >= 10 * 4
