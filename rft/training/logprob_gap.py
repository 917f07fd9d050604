"""Says when the trainer's log-probabilities are too far from the sampler's, though their weights are the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from rft.errors import SamplerGapError

WARN_EVERY = 50
"""Steps between two warnings."""

logger = logging.getLogger(__name__)


class LogprobGapMonitor:
    """Watches ``logprob_gap_mean`` step by step."""

    def __init__(self, limit: float | None, then: Literal["warn", "stop"]) -> None:
        """``limit`` in nats; None: never says anything."""
        self._limit = limit
        self._then = then
        self._warned_at: int | None = None

    def see(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of ``step``. Raises SamplerGapError when they are beyond the limit, if that is to stop it."""
        gap = metrics.get("logprob_gap_mean")
        if self._limit is None or gap is None or gap <= self._limit:
            return
        message = (
            f"step {step}: the trainer's log-probabilities are {gap:.3g} nats from the sampler's in the mean "
            f"(p99 {metrics.get('logprob_gap_p99', gap):.3g}, max {metrics.get('logprob_gap_max', gap):.3g}), beyond "
            f"trainer.max_logprob_gap = {self._limit:g}, on tokens of the very same weights: importance ratios mean "
            "little. Look for another dtype or attention of the sampler, sampling settings that experiences do not "
            "name (top_k, penalties), or tokens that were encoded again"
        )
        if self._then == "stop":
            raise SamplerGapError(message + ". trainer.on_logprob_gap = 'warn' goes on all the same")
        if self._warned_at is None or step - self._warned_at >= WARN_EVERY:
            self._warned_at = step
            logger.warning("%s", message)
