"""A trainer whose log-probabilities differ from the sampler's warns, and stops if configured to."""

import logging

import pytest

from rft.errors import SamplerGapError
from rft.training.logprob_gap import WARN_EVERY, LogprobGapMonitor

FAR = {"logprob_gap_mean": 0.7, "logprob_gap_p99": 2.0, "logprob_gap_max": 3.0}


def test_a_gap_above_the_limit_is_warned_about_every_fifty_steps(caplog):
    monitor = LogprobGapMonitor(0.5, "warn")
    with caplog.at_level(logging.WARNING):
        for step in range(1, 2 * WARN_EVERY + 1):
            monitor.check(step, FAR)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 1", f"step {1 + WARN_EVERY}"]
    assert "0.7 nats" in caplog.text
    assert "trainer.max_logprob_gap = 0.5" in caplog.text


def test_it_stops_the_run_if_configured_to():
    with pytest.raises(SamplerGapError, match=r"step 3: .* 0\.7 nats .*p99 2, max 3"):
        LogprobGapMonitor(0.5, "stop").check(3, FAR)


@pytest.mark.parametrize("metrics", [{}, {"logprob_gap_mean": 0.5}])
def test_a_gap_within_the_limit_or_not_measured_passes(metrics, caplog):
    LogprobGapMonitor(0.5, "stop").check(1, metrics)
    LogprobGapMonitor(None, "stop").check(1, FAR)
    assert not caplog.records
