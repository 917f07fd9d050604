"""Defines the contract of weight transports: how a weight version that the trainer has made reaches explorers.

Every version is announced on the log by a WeightVersion event; a transport decides how its tensors travel.

``checkpoint``  :mod:`rft.weights.folder_transport`: a folder for each version, which every explorer reads
``collective``  :mod:`rft.weights.collective_transport`: a broadcast to the explorers that are there, and a folder every
                ``weights.checkpoint_every`` versions and for explorers that are behind

:func:`rft.weights.opening.open_transport` opens the one that is configured. An explorer chooses how it gets a version
by :func:`rft.weights.version_choice.choose`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from schemas.events import WeightVersion

if TYPE_CHECKING:
    from rft.model_files.weights_file import WeightsFile

CHECKPOINT = "checkpoint"
COLLECTIVE = "collective"
"""Values of ``weights.transport`` and ``WeightVersion.transport``."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A weight version that the trainer has made."""

    model: str
    """``trainer.model_key``"""
    version: int
    step: int
    """The gradient step whose weights these are."""
    weights: WeightsFile
    """In host memory, in the dtype that is published."""
    final: bool = False
    """True for the last version of a run."""

    def announcement(self, transport: str, uri: str = "") -> WeightVersion:
        """Return the event that announces the version. ``uri`` is its folder within the run's; empty if it has none."""
        return WeightVersion(
            model=self.model,
            version=self.version,
            step=self.step,
            transport=transport,
            uri=uri,
            sha256=self.weights.sha256,
            size_bytes=len(self.weights.data),
            final=self.final,
            created_at=int(time.time() * 1000),
        )


class WeightTransport(Protocol):
    """Brings a trainer's versions to explorers. Versions come in order, from one thread."""

    def publish(self, new: NewVersion) -> WeightVersion:
        """Announce a version whose step is on the log, and return the event once it is on the log.

        Explorers may receive the tensors afterwards. Raises BrokerError, WeightsError.
        """

    def restore(self, new: NewVersion, announced: WeightVersion | None) -> WeightVersion:
        """Make a version available after a start: write its folder, and announce it if that is needed.

        ``announced`` is the newest version on the log. Returns the newest afterwards. Raises BrokerError, WeightsError.
        """

    def take_metrics(self) -> dict[str, float]:
        """Return what was measured since the last call, by metric name."""

    def close(self, *, drain: bool) -> None:
        """Stop. If ``drain``, first let the newest version reach the explorers, within its deadline. Does not raise."""
