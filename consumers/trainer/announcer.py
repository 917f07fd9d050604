"""Publishes what the trainer has done: its steps, and then the weight versions that they made."""

from __future__ import annotations

from dataclasses import replace

from consumers.trainer.claim import Claim
from rft.config import Config
from rft.log.coordinates import LogPosition
from rft.model_files.weights_file import WeightsFile
from rft.training.learner import Learner
from rft.weights.transport import NewVersion, WeightTransport
from rft.weights.wire_dtype import WireDtype
from schemas.events import TrainingStep, WeightVersion


class Announcer:
    """Publishes records and versions, and returns only when they are on the log."""

    def __init__(self, config: Config, claim: Claim, transport: WeightTransport, wire_dtype: WireDtype) -> None:
        self._model = config.trainer.model_key
        self._claim = claim
        self._transport = transport
        self._wire_dtype = wire_dtype

    def record(self, record: TrainingStep) -> LogPosition:
        """Publish an entry of the redo log and return its position.

        Raises BrokerError, and FencedError when the entry does not count because another trainer has taken over.
        """
        position = self._claim.write(replace(record, incarnation=self._claim.incarnation))
        self._claim.check_entry(position)
        return position

    def publish(self, learner: Learner, version: int, weights: WeightsFile, *, final: bool) -> WeightVersion:
        """Announce ``weights``, whose step is on the log, as ``version``. Raises BrokerError, WeightsError."""
        return self._transport.publish(self._new_version(learner, version, weights, final=final))

    def restore(
        self, learner: Learner, version: int, weights: WeightsFile, newest: WeightVersion | None, *, final: bool
    ) -> WeightVersion:
        """Make ``version`` available again after a start and return the newest version on the log.

        ``newest`` was the newest before. Raises BrokerError, WeightsError.
        """
        return self._transport.restore(self._new_version(learner, version, weights, final=final), newest)

    def check_claim(self) -> None:
        """Raise FencedError if another trainer has taken over; looks every few seconds. Raises BrokerError."""
        self._claim.check_periodically()

    def take_metrics(self) -> dict[str, float]:
        """Return the transport's metrics since the last call."""
        return self._transport.take_metrics()

    def _new_version(self, learner: Learner, version: int, weights: WeightsFile, *, final: bool) -> NewVersion:
        return NewVersion(self._model, version, learner.step, self._wire_dtype.convert(weights), final=final)
