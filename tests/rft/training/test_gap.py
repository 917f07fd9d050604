"""A trainer whose log-probabilities are not the sampler's says so, and stops if it is told to."""

import logging

import pytest

from rft.errors import SamplerGapError
from rft.training.logprob_gap import WARN_EVERY, LogprobGapMonitor

FAR = {"logprob_gap_mean": 0.7, "logprob_gap_p99": 2.0, "logprob_gap_max": 3.0}


def test_a_gap_beyond_the_limit_is_warned_of_now_and_then(caplog):
    watch = LogprobGapMonitor(0.5, "warn")
    with caplog.at_level(logging.WARNING):
        for step in range(1, 2 * WARN_EVERY + 1):
            watch.see(step, FAR)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 1", f"step {1 + WARN_EVERY}"]
    assert "0.7 nats" in caplog.text
    assert "trainer.max_logprob_gap = 0.5" in caplog.text


def test_it_stops_a_run_that_asks_for_it():
    with pytest.raises(SamplerGapError, match=r"step 3: .* 0\.7 nats .*p99 2, max 3"):
        LogprobGapMonitor(0.5, "stop").see(3, FAR)


@pytest.mark.parametrize("metrics", [{}, {"logprob_gap_mean": 0.5}])
def test_what_is_within_or_was_not_measured_passes(metrics, caplog):
    LogprobGapMonitor(0.5, "stop").see(1, metrics)
    LogprobGapMonitor(None, "stop").see(1, FAR)
    assert not caplog.records
