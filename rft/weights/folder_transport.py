"""Implements the folder transport (``weights.transport = "checkpoint"``): every version has a folder."""

from __future__ import annotations

from rft.log.writer import EventWriter
from rft.weights.transport import NewVersion
from rft.weights.version_folders import VersionFolders
from schemas.events import WeightVersion


class FolderTransport:
    """Writes a folder for each version, then announces it. See :class:`rft.weights.transport.WeightTransport`."""

    def __init__(self, folders: VersionFolders, writer: EventWriter) -> None:
        self._folders = folders
        self._writer = writer

    def publish(self, new: NewVersion) -> WeightVersion:
        """Write the version's folder, waiting for space on a full disk, and announce it."""
        event = self._folders.write_when_possible(new)
        self._announce(event)
        return event

    def restore(self, new: NewVersion, announced: WeightVersion | None) -> WeightVersion:
        """Write the version's folder if it is missing, and announce the version unless it is ``announced``."""
        event = self._folders.write_when_possible(new)
        if announced is not None and (announced.version, announced.sha256) == (event.version, event.sha256):
            return announced
        self._announce(event)
        return event

    def take_metrics(self) -> dict[str, float]:
        """Return nothing: the trainer measures the writing itself."""
        return {}

    def close(self, *, drain: bool) -> None:
        """Do nothing: what is announced is there."""

    def _announce(self, event: WeightVersion) -> None:
        self._writer.send("weights", event)
        self._writer.flush()
