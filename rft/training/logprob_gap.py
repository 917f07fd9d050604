"""Warns when the trainer's log-probabilities are too far from the sampler's although their weights are the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from rft.errors import SamplerGapError

WARN_EVERY = 50
"""Steps between two warnings, so that a lasting gap does not flood the log."""

logger = logging.getLogger(__name__)


class LogprobGapMonitor:
    """Compares ``logprob_gap_mean`` of each step with a limit."""

    def __init__(self, limit: float | None, then: Literal["warn", "stop"]) -> None:
        """Monitor against ``limit``, in nats; None: no limit."""
        self._limit = limit
        self._then = then
        self._warned_at: int | None = None

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Check the metrics of ``step`` and warn if the mean gap is above the limit.

        A step without tokens of its own weight version has no gap and passes. Raises SamplerGapError instead of warning
        if ``then`` is "stop".
        """
        gap = metrics.get("logprob_gap_mean")
        if self._limit is None or gap is None or gap <= self._limit:
            return
        message = (
            f"step {step}: the trainer's log-probabilities are on average {gap:.3g} nats from the sampler's "
            f"(p99 {metrics.get('logprob_gap_p99', gap):.3g}, max {metrics.get('logprob_gap_max', gap):.3g}), above "
            f"trainer.max_logprob_gap = {self._limit:g}, on tokens that the same weights sampled. Importance ratios "
            "are not reliable. Check whether the sampler uses another dtype or attention, or sampling settings that "
            "experiences do not record (top_k, penalties), and whether tokens were encoded again"
        )
        if self._then == "stop":
            raise SamplerGapError(message + ". To continue anyway, set trainer.on_logprob_gap = 'warn'")
        if self._warned_at is None or step - self._warned_at >= WARN_EVERY:
            self._warned_at = step
            logger.warning("%s", message)
