"""Implements the collective transport (``weights.transport = "collective"``): versions are broadcast."""

from __future__ import annotations

from rft.weights.distributor import Distributor
from rft.weights.transport import COLLECTIVE, NewVersion
from rft.weights.version_folders import VersionFolders
from schemas.events import WeightVersion


class CollectiveTransport:
    """Broadcasts each version and writes few folders. See :class:`rft.weights.transport.WeightTransport`."""

    def __init__(self, folders: VersionFolders, distributor: Distributor, checkpoint_every: int) -> None:
        """Every ``checkpoint_every``-th version has a folder, and the final one."""
        self._folders = folders
        self._distributor = distributor
        self._checkpoint_every = checkpoint_every

    def publish(self, new: NewVersion) -> WeightVersion:
        """Write the version's folder if one is due, and hand the version to the distributor, which announces it.

        Waits for the transfer of the version before it, which its deadline bounds.
        """
        due = new.final or new.version % self._checkpoint_every == 0
        event = self._folders.write_when_possible(new) if due else new.announcement(COLLECTIVE)
        self._distributor.publish(event, new)
        return event

    def restore(self, new: NewVersion, announced: WeightVersion | None) -> WeightVersion:
        """Write the version's folder and distribute the version again.

        If it was announced, its transfer ended with its trainer. Members read its folder now, and those without access
        to folders are sent it.
        """
        event = self._folders.write_when_possible(new)
        self._distributor.publish(event, new)
        return event

    def take_metrics(self) -> dict[str, float]:
        """Return the metrics of :meth:`rft.weights.distributor.Distributor.take_metrics`."""
        return self._distributor.take_metrics()

    def close(self, *, drain: bool) -> None:
        """Stop the distributor, after the open update if ``drain``."""
        self._distributor.close(drain=drain)
