"""An explorer's part in one transfer, on a thread that may be abandoned without hurting the explorer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from rft.config import WeightsConfig
from rft.errors import PolicyError, WeightsError
from rft.policy.base import Policy
from rft.weights.reception import Reception
from schemas.events import WeightVersion

GRACE_S = 30.0
"""After a deadline, or after it was told to end: how long a stuck reception may last before the role ends."""

log = logging.getLogger("rft")


class ReceptionThread:
    """At most one reception at a time."""

    def __init__(self, config: WeightsConfig, policy: Policy) -> None:
        self._config = config
        self._policy = policy
        self._thread: threading.Thread | None = None
        self._epoch = -1
        self._ends_at = 0.0
        self._aborted = False
        self._counts = {"received": 0.0, "missed": 0.0, "received_bytes": 0.0}

    @property
    def stats(self) -> dict[str, float]:
        """Since start: transfers ``received`` and ``missed``, ``received_bytes``."""
        return dict(self._counts)

    @property
    def busy(self) -> bool:
        """Whether one is under way, or stuck."""
        return self._thread is not None and self._thread.is_alive()

    def begin(
        self, announced: WeightVersion, receivers: Sequence[str], took: Callable[[WeightVersion, float], None]
    ) -> None:
        """Take part in the announced transfer; ``took(announced, seconds)`` on its thread when the policy has it."""
        receptions = [self._reception(announced, receiver) for receiver in receivers]
        self._epoch, self._aborted = announced.epoch, False
        self._ends_at = time.monotonic() + announced.deadline_ms / 1000
        self._thread = threading.Thread(
            target=self._receive, args=(receptions, announced, took), name="weights-reception", daemon=True
        )
        self._thread.start()

    def expire(self, *, newest_epoch: int) -> None:
        """Break it off if its time is over or the trainer has gone on. Raises WeightsError if it does not end."""
        now = time.monotonic()
        if newest_epoch > self._epoch or now >= self._ends_at:
            self._ends_at = min(self._ends_at, now)
            self.abort()
        if now >= self._ends_at + GRACE_S:
            raise WeightsError(
                f"a transfer of weights (epoch {self._epoch}, {self._config.backend}) is stuck and cannot be broken "
                "off; this explorer ends, to be started again"
            )

    def abort(self) -> None:
        """Break it off."""
        if self.busy and not self._aborted:
            self._aborted = True
            self._policy.abort_reception()

    def close(self, timeout_s: float) -> None:
        """Break it off and wait for its end: a thread within torch at the end of a process would abort that."""
        self.abort()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _reception(self, announced: WeightVersion, receiver: str) -> Reception:
        return Reception(
            rendezvous=announced.rendezvous,
            epoch=announced.epoch,
            receiver=receiver,
            backend=announced.backend,
            bind=self._config.bind,
            layout=announced.layout,
            checksums=announced.checksums,
            bucket_bytes=announced.bucket_bytes,
            sha256=announced.sha256,
            verify=self._config.verify,
            deadline_s=announced.deadline_ms / 1000,
            stall_s=self._config.stall_s,
        )

    def _receive(
        self,
        receptions: Sequence[Reception],
        announced: WeightVersion,
        took: Callable[[WeightVersion, float], None],
    ) -> None:
        began = time.monotonic()
        try:
            self._policy.receive_weights(receptions, announced.version)
        except (WeightsError, PolicyError) as error:
            self._counts["missed"] += 1
            log.warning("epoch %d did not bring weight version %d: %s", announced.epoch, announced.version, error)
            return
        self._counts["received"] += 1
        self._counts["received_bytes"] += announced.size_bytes
        took(announced, time.monotonic() - began)
