"""A trainer whose log-probabilities differ from the sampler's warns, and stops if configured to."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from sampled_steps import lab_of, stamped, steps
from synthetic import VOCABULARY, make_tiny_model

from benchmarks.lab import Lab, Task
from rft.errors import SamplerGapError
from rft.training.logprob_gap import IN_A_ROW, WARN_EVERY, LogprobGapMonitor, Movement

FAR = {"logprob_gap_mean": 0.7, "logprob_gap_p99": 2.0, "logprob_gap_max": 3.0}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return lab_of(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


def check(monitor: LogprobGapMonitor, step: int, metrics: dict[str, float], sync_interval: int = 1) -> None:
    version, past = divmod(step - 1, sync_interval)
    monitor.check(step, metrics, version=version, begins=past == 0)


def test_a_gap_above_the_limit_is_warned_about_every_fifty_steps(caplog: pytest.LogCaptureFixture) -> None:
    monitor = LogprobGapMonitor(0.5, "warn")
    with caplog.at_level(logging.WARNING):
        for step in range(1, 2 * WARN_EVERY + 1):
            check(monitor, step, FAR)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 1", f"step {1 + WARN_EVERY}"]
    assert "0.7 nats" in caplog.text
    assert "trainer.max_logprob_gap = 0.5" in caplog.text


def test_it_stops_the_run_if_configured_to() -> None:
    with pytest.raises(SamplerGapError, match=r"step 3: .* 0\.7 nats .*p99 2, max 3"):
        check(LogprobGapMonitor(0.5, "stop"), 3, FAR)


@pytest.mark.parametrize("metrics", [{}, {"logprob_gap_mean": 0.5}, {"sampler_gap": 0.3, "sampler_version": 0.0}])
def test_a_gap_within_the_limit_or_not_measured_passes(
    metrics: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    check(LogprobGapMonitor(0.5, "stop"), 1, metrics)
    check(LogprobGapMonitor(None, "stop"), 1, FAR)
    assert not caplog.records


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(("rate", "algorithm", "trainer"), [
    (1e-3, {}, {}),
    (3e-4, {"name": "ppo", "value_warmup": 3}, {"minibatches": 2}),
])  # fmt: skip
def test_a_sampler_that_keeps_its_old_weights_is_found_and_an_honest_one_is_not(
    lab: Lab, lag: int, rate: float, algorithm: dict[str, Any], trainer: dict[str, Any]
) -> None:
    """Both stamp each new version. No gap exceeds ``max_logprob_gap``: that limit alone finds neither."""
    for ignores_updates in (False, True):
        monitor, found, largest = LogprobGapMonitor(0.5, "stop"), "", 0.0
        metrics = steps(
            lab, lag=lag, ignores_updates=ignores_updates, count=40, algorithm=algorithm, learning_rate=rate, **trainer
        )
        for step, one in enumerate(metrics, start=1):
            largest = max(largest, one.get("logprob_gap_mean", 0.0))
            try:
                check(monitor, step, one)
            except SamplerGapError as error:
                found = str(error)
                break
        assert largest < 0.5
        assert bool(found) == ignores_updates, found
        if found:
            assert "not to use the weights that it names" in found
            assert "restart the explorers" in found


def test_a_steady_difference_of_implementations_is_not_taken_for_old_weights() -> None:
    """A sampler in another number format is 0.05 nats away from the first step on."""
    numbers, monitor = np.random.default_rng(0), LogprobGapMonitor(0.5, "stop")
    for step in range(1, 300):
        gap, shift = (abs(numbers.normal(mean, mean / 4)) for mean in (0.055, 0.005))
        check(monitor, step, {"sampler_gap": gap, "sampler_version": max(step - 2.0, 0.0), "policy_shift": shift})


def test_versions_that_are_several_steps_apart_add_their_shifts() -> None:
    """With ``sync_interval`` 4, tokens of the last version are up to eight steps old."""
    monitor = LogprobGapMonitor(0.5, "stop")

    def take(step: int, age: int) -> None:
        stamped = max((step - 1) // 4 - 1.0, 0.0)
        metrics = {"sampler_gap": 0.02 * age, "sampler_version": stamped, "policy_shift": 0.02}
        check(monitor, step, metrics, sync_interval=4)

    for step in range(1, 101):
        take(step, age=(step - 1) % 4 + 4 * (step > 4))
    for step in range(101, 100 + IN_A_ROW):
        take(step, age=step)
    with pytest.raises(SamplerGapError):
        take(100 + IN_A_ROW, age=100 + IN_A_ROW)


def test_movement_is_not_known_before_this_process_began_or_has_measured_any() -> None:
    movement = Movement()
    movement.begin(7, begins=False)
    movement.add(7, None)
    movement.begin(8, begins=True)
    assert movement.since(7, 8) is None
    assert movement.since(8, 8) == 0.0
    movement.add(8, None)
    movement.begin(9, begins=True)
    assert movement.since(8, 9) is None
    movement.add(9, 0.25)
    movement.begin(10, begins=True)
    assert movement.since(9, 10) == 0.25
    movement.add(10, None)
    movement.begin(11, begins=True)
    assert movement.since(9, 11) == 0.5  # A step that was not measured counts as the last that was.


def test_the_lab_samples_prompts_of_different_lengths_with_the_log_probabilities_of_its_trainer(lab: Lab) -> None:
    """A sampler that ignores padding would be off by tenths of a nat, and all of the lab's figures with it."""
    numbers = np.random.default_rng(1)
    prompts = [tuple(numbers.integers(2, VOCABULARY, length).tolist()) for length in (2, 3, 5, 9)]
    engine = lab.engine({})
    written = lab.write(engine.model, [Task(prompt, ()) for prompt in prompts], 4, 1.0, seed=0)
    assert engine.step(1, stamped(written, 0), version=0)["logprob_gap_max"] < 1e-4
