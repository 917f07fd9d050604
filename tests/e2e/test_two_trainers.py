"""Several trainers on one log: each learns at its own pace, under its own identity, and is accounted for."""

import pytest
from pipeline import read_log, settings

from consumers.audit import audit
from rft.log.opening import open_log
from rft.training.checkpoint import newest_checkpoint

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(240)]


def test_an_sft_trainer_next_to_an_rl_one_survives_kill_9_and_both_balance(
    pipeline, tmp_path, tiny_model, kafka_broker
):
    """Each trains every experience at most once. The SFT trainer's death delays no other role, and explorers use only
    the main trainer's weights."""
    run = pipeline(
        settings(
            tmp_path, tiny_model, kafka_broker,
            trainer={"steps": 40, "groups_per_step": 4, "learning_rate": 1e-3, "checkpoint_interval": 7},
            trainers={
                "imitation": {
                    "algorithm": {"name": "sft"},
                    "trainer": {"steps": 20, "groups_per_step": 2, "min_reward": 1.0},
                }
            },
        )
    )  # fmt: skip
    imitator = run.config.of_trainer("imitation")
    run.wait_until(lambda: newest_checkpoint(run.config.run.path, "imitation") is not None, 150, "a checkpoint of it")
    victims = [process for process in run.role("trainer") if "imitation" in process.cmdline()]
    assert victims
    victims[0].kill()
    assert run.wait(200) == 0, run.tail()

    log = read_log(run.config)
    for key in ("policy", "imitation"):
        steps = [step for step in log.steps if step.model == key and step.kind == "step"]
        by_number = {step.step: step for step in steps}
        trained = [ref for step in by_number.values() for ref in step.trained]
        assert len({ref.experience_id for ref in trained}) == len(trained)
        assert sorted(by_number) == list(range(1, len(by_number) + 1))
        announced = [weights for weights in log.weights if weights.model == key]
        assert [weights.final for weights in announced][-1] is True
        assert announced[-1].sha256 == by_number[max(by_number)].digest
    imitated = [ref for s in log.steps if s.model == "imitation" and s.kind == "step" for ref in s.trained]
    assert imitated
    assert {log.ready[ref.partition, ref.offset].reward for ref in imitated} == {1.0}
    assert {e.model for e in log.experiences} == {"policy"}, "only the first trainer's weights write experiences"
    with open_log(run.config) as view:
        report = audit(run.config, view)
    assert report.ok, report.problems
    assert {balance.model for balance in report.trained} == {"policy", "imitation"}
    assert imitator.trainer.follows == "policy"
    found = run.report["trainers"]["imitation"]
    assert found["steps"] == len({s.step for s in log.steps if s.model == "imitation" and s.kind == "step"})
    assert {reward for _, reward in found["reward"]} == {1.0}
