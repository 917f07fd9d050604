"""Accesses the files of an archive, in a folder or at an fsspec URL."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.core import url_to_fs

from rft.errors import ArchiveError
from rft.log.archive.files import PART, ArchiveFile

MANIFEST = "archive.json"
_FORMAT = 1


class ArchiveStore:
    """Files and manifest of one archive. Raises ArchiveError where the file system refuses."""

    def __init__(self, url: str) -> None:
        """``url`` is a path or an fsspec URL. Raises ArchiveError if there is no file system for it."""
        self.url = url
        try:
            self._fs, root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ArchiveError(f"archive {url}: {error}") from error
        self._root = root.rstrip("/")
        self.local = isinstance(self._fs, fsspec.get_filesystem_class("file"))
        """True on a disk of this machine, where files must be forced to disk."""

    def topics(self) -> dict[str, int]:
        """Return the number of partitions of each archived topic. Raises ArchiveError if this is no archive."""
        return {str(topic): int(count) for topic, count in self._manifest()["topics"].items()}

    def names(self) -> dict[str, str]:
        """Return the name of each entity's topic. Archives of release 0.1.0 hold none."""
        return {str(entity): str(topic) for entity, topic in self._manifest().get("names", {}).items()}

    def _manifest(self) -> dict[str, Any]:
        with self._faults("read"):
            if not self._fs.exists(self._at(MANIFEST)):
                raise ArchiveError(
                    f"{self.url} is no archive: it holds no {MANIFEST}. `rft run` and `rft archiver` write archives. "
                    "Check run.name and run.folder, or start the run"
                )
            manifest: dict[str, Any] = json.loads(self._fs.cat_file(self._at(MANIFEST)))
        if manifest.get("format") != _FORMAT:
            raise ArchiveError(f"archive {self.url}: format {manifest.get('format')}, this release reads {_FORMAT}")
        return manifest

    def add_topics(self, topics: Mapping[str, int], names: Mapping[str, str]) -> None:
        """Create the archive if there is none, and record that it holds these topics, and their names by entity."""
        with self._faults("write"):
            self._fs.makedirs(self._root, exist_ok=True)
            known = self._manifest() if self._fs.exists(self._at(MANIFEST)) else {}
            manifest = {
                "format": _FORMAT,
                "topics": {**known.get("topics", {}), **topics},
                "names": {**known.get("names", {}), **names},
            }
            with self.create(MANIFEST + PART) as file:
                file.write(json.dumps(manifest, indent=1).encode())
                self.force(file)
            self.finish(MANIFEST + PART, MANIFEST)
            for topic in topics:
                self._fs.makedirs(self._at(topic), exist_ok=True)

    def files(self, topic: str) -> dict[int, list[ArchiveFile]]:
        """Return the finished files of a topic by partition, in the order of their offsets."""
        found: dict[int, list[ArchiveFile]] = {}
        with self._faults("read"):
            self._fs.invalidate_cache()
            names = self._fs.ls(self._at(topic), detail=False) if self._fs.exists(self._at(topic)) else []
        for name in names:
            file = ArchiveFile.parse(name.rsplit("/", 1)[-1])
            if file is not None and file.topic == topic:
                found.setdefault(file.partition, []).append(file)
        return {partition: sorted(files) for partition, files in sorted(found.items())}

    def remove_unfinished(self, topic: str) -> None:
        """Remove the unfinished files of an archiver that was killed."""
        with self._faults("write"):
            for name in self._fs.ls(self._at(topic), detail=False):
                if name.endswith(PART):
                    self._fs.rm_file(name)

    def open(self, file: ArchiveFile) -> IO[bytes]:
        """Open a finished file as a binary file object."""
        with self._faults("read"):
            return self._fs.open(self._at(file.path), "rb")

    def create(self, path: str) -> IO[bytes]:
        """Create a file at a path within the archive, and overwrite any that is there."""
        with self._faults("write"):
            return self._fs.open(self._at(path), "wb")

    def force(self, file: IO[bytes]) -> None:
        """Make what was written to ``file`` survive a power failure (in remote stores: once the file is closed)."""
        with self._faults("write"):
            file.flush()
            if self.local:
                os.fsync(file.fileno())

    def finish(self, unfinished: str, path: str) -> None:
        """Give a closed file its name."""
        with self._faults("write"):
            if not self.local:
                self._fs.mv(self._at(unfinished), self._at(path))
                return
            os.replace(self._at(unfinished), self._at(path))
            folder = os.open(os.path.dirname(self._at(path)), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second archiver out of a local archive. Remote stores have no lock: start only one archiver yourself.

        Raises:
            ArchiveError: Another archiver works in it.
        """
        if not self.local:
            yield
            return
        with self._faults("write"):
            Path(self._root).mkdir(parents=True, exist_ok=True)
            lock = open(self._at(".lock"), "w")  # noqa: SIM115 (held while the generator is suspended)
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ArchiveError(
                    f"another archiver works in {self.url}; stop it, or set another archive.url"
                ) from None
            yield

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextlib.contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArchiveError(f"archive {self.url} cannot be {_PAST[doing]}: {error}") from error


_PAST = {"read": "read", "write": "written"}
