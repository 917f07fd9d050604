"""Warns when the trainer's log-probabilities are farther from the sampler's than their weights explain.

There are two checks. Both compare the same tokens, which the sampler and the trainer have rated.

- Tokens of the very weights that the step started from: the mean distance has a limit, ``trainer.max_logprob_gap``.
- Tokens of the newest weights in the step, which may be older: the distance should be about as large as the policy's
  own movement since these weights (:mod:`rft.training.policy_shift`), plus what the two implementations always differ
  by. An engine that stamps new versions and goes on sampling from old weights drifts away from that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Literal

from rft.errors import SamplerGapError

WARN_EVERY = 50
"""Steps between two warnings, so that a lasting gap does not flood the log."""
FACTOR = 4.0
"""How many times the expected distance is too large. The movement is measured on few tokens, and on others."""
LEAST = 0.01
"""Nats that are never too large: kernels and number formats differ by this much."""
SMOOTHING = 0.25
"""Share of a step in the running mean of what the policy's movement does not explain. The lowest mean so far is taken
for the difference of the implementations."""
IN_A_ROW = 3
"""Steps in a row that must be too far, because single steps scatter."""

logger = logging.getLogger(__name__)


class LogprobGapMonitor:
    """Checks the metrics of each step."""

    def __init__(self, limit: float | None, then: Literal["warn", "stop"]) -> None:
        """Monitor against ``limit``, in nats; None: check nothing."""
        self._limit = limit
        self._then = then
        self._warned_at: dict[str, int] = {}
        self._movement = Movement()
        self._unexplained: float | None = None
        self._least = math.inf
        self._too_far = 0

    def check(self, step: int, metrics: Mapping[str, float], *, version: int, begins: bool) -> None:
        """Check the metrics of ``step`` and warn about a gap that the weights do not explain.

        A step without tokens of known weights passes. Raises SamplerGapError instead of warning if ``then`` is "stop".

        Args:
            version: the newest weight version as the step started.
            begins: the step started from the weights of ``version``; False if other steps came between.
        """
        if self._limit is None:
            return
        self._movement.begin(version, begins)
        self._check_same_weights(step, metrics, self._limit)
        self._check_newest_weights(step, metrics, version)
        self._movement.add(version, metrics.get("policy_shift"))

    def _check_same_weights(self, step: int, metrics: Mapping[str, float], limit: float) -> None:
        gap = metrics.get("logprob_gap_mean")
        if gap is None or gap <= limit:
            return
        self._report(
            "same",
            step,
            f"step {step}: the trainer's log-probabilities are on average {gap:.3g} nats from the sampler's "
            f"(p99 {metrics.get('logprob_gap_p99', gap):.3g}, max {metrics.get('logprob_gap_max', gap):.3g}), above "
            f"trainer.max_logprob_gap = {limit:g}, on tokens that the same weights sampled. Importance ratios "
            "are not reliable. Check whether the sampler uses another dtype or attention, or sampling settings that "
            "experiences do not record (top_k, penalties), and whether tokens were encoded again",
        )

    def _check_newest_weights(self, step: int, metrics: Mapping[str, float], version: int) -> None:
        gap, sampled = metrics.get("sampler_gap"), metrics.get("sampler_version")
        moved = None if sampled is None else self._movement.since(int(sampled), version)
        if gap is None or sampled is None or moved is None:
            return
        unexplained = max(gap - moved, 0.0)
        before = unexplained if self._unexplained is None else self._unexplained
        self._unexplained = before + SMOOTHING * (unexplained - before)
        self._least = min(self._least, self._unexplained)
        self._too_far = self._too_far + 1 if gap > FACTOR * (moved + self._least) + LEAST else 0
        if self._too_far < IN_A_ROW:
            return
        self._report(
            "newest",
            step,
            f"step {step}: the sampler seems not to use the weights that it names. Its log-probabilities of tokens "
            f"stamped with version {int(sampled)} are on average {gap:.3g} nats from the trainer's, but the policy has "
            f"moved only about {moved:.3g} nats since that version, and at best {self._least:.3g} nats were left "
            "unexplained. Check that the explorers' engine applies new weights (their logs; with policy.engine = "
            "'openai', whether its server reloads them), then restart the explorers: they load the newest version",
        )

    def _report(self, what: str, step: int, message: str) -> None:
        if self._then == "stop":
            raise SamplerGapError(message + ". To continue anyway, set trainer.on_logprob_gap = 'warn'")
        if step - self._warned_at.get(what, -WARN_EVERY) >= WARN_EVERY:
            self._warned_at[what] = step
            logger.warning("%s", message)


class Movement:
    """How far the policy has moved from version to version, in nats, as far as this process has seen it."""

    def __init__(self) -> None:
        self._by_version: dict[int, float] = {}
        self._measured: float | None = None
        self._first: int | None = None
        """The oldest version whose steps have all been seen."""

    def begin(self, version: int, begins: bool) -> None:
        """Note that a step starts from ``version``; ``begins`` as in :meth:`LogprobGapMonitor.check`."""
        if self._first is None:
            self._first = version if begins else version + 1
        self._by_version.setdefault(version, 0.0)

    def add(self, version: int, shift: float | None) -> None:
        """Add the shift of a step that started from ``version``, or after it and before the next.

        None: it was not measured, and the last that was counts once more.
        """
        self._measured = self._measured if shift is None else shift
        self._by_version[version] += self._measured or 0.0

    def since(self, old: int, now: int) -> float | None:
        """Return the movement from the weights of version ``old`` to the present ones; None if it is not known.

        It is the sum over the versions between, which is at least the distance of the two. Where less was measured
        than on average, the average counts.
        """
        if self._first is None or old < self._first or (old < now and self._measured is None):
            return None
        complete = [shift for version, shift in self._by_version.items() if version < now]
        mean = sum(complete) / max(len(complete), 1)
        between = sum(max(self._by_version.get(version, 0.0), mean) for version in range(old, now))
        return between + self._by_version.get(now, 0.0)
