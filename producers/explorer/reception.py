"""Receives one transfer of weights at a time, on a thread that can be abandoned without harm to the explorer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from rft.config import WeightsConfig
from rft.errors import PolicyError, WeightsError
from rft.policy.base import Policy
from rft.weights.transfer_spec import TransferSpec
from schemas.events import WeightVersion

GRACE_S = 30.0
"""How long a reception may be stuck after its deadline or its abort before the role ends."""

log = logging.getLogger("rft")


class ReceptionThread:
    """Runs at most one reception at a time."""

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
        """Counters since the start: transfers ``received`` and ``missed``, ``received_bytes``."""
        return dict(self._counts)

    @property
    def busy(self) -> bool:
        """Whether a reception runs or is stuck."""
        return self._thread is not None and self._thread.is_alive()

    def begin(
        self, announced: WeightVersion, receivers: Sequence[str], installed: Callable[[WeightVersion, float], None]
    ) -> None:
        """Take part in a transfer. The thread calls ``installed(announced, seconds)`` when the policy has weights."""
        specs = [self._spec(announced, receiver) for receiver in receivers]
        self._epoch, self._aborted = announced.epoch, False
        self._ends_at = time.monotonic() + announced.deadline_ms / 1000
        self._thread = threading.Thread(
            target=self._receive, args=(specs, announced, installed), name="weights-reception", daemon=True
        )
        self._thread.start()

    def expire(self, *, newest_epoch: int) -> None:
        """Abort the reception if it is late or the trainer has gone on. Raises WeightsError if it does not end."""
        now = time.monotonic()
        if newest_epoch > self._epoch or now >= self._ends_at:
            self._ends_at = min(self._ends_at, now)
            self.abort()
        if now >= self._ends_at + GRACE_S:
            raise WeightsError(
                f"a transfer of weights (epoch {self._epoch}, {self._config.backend}) is stuck and cannot be aborted. "
                "This explorer must be restarted."
            )

    def abort(self) -> None:
        """Abort the reception."""
        if self.busy and not self._aborted:
            self._aborted = True
            self._policy.abort_transfer()

    def close(self, timeout_s: float) -> None:
        """Abort the reception and wait for its end: a thread inside torch would abort the process at its exit."""
        self.abort()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _spec(self, announced: WeightVersion, receiver: str) -> TransferSpec:
        return TransferSpec(
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
        specs: Sequence[TransferSpec],
        announced: WeightVersion,
        installed: Callable[[WeightVersion, float], None],
    ) -> None:
        began = time.monotonic()
        try:
            self._policy.receive_weights(specs, announced.version)
        except (WeightsError, PolicyError) as error:
            self._counts["missed"] += 1
            log.warning("weight version %d was not received in epoch %d: %s", announced.version, announced.epoch, error)
            return
        self._counts["received"] += 1
        self._counts["received_bytes"] += announced.size_bytes
        installed(announced, time.monotonic() - began)
