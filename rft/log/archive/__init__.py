"""Archives: topics copied into Avro container files, in a folder or at any fsspec URL.

One file holds one range of one partition, ``<topic>/<topic>.<partition>.<first>-<end>.avro`` (``end`` exclusive), so
the names alone show what is there and what is missing. A file gets its name only when it is finished.
"""

from __future__ import annotations

from rft.log.archive.files import ArchiveFile
from rft.log.archive.reading import read_blocks
from rft.log.archive.store import ArchiveStore
from rft.log.archive.writing import FileWriter

__all__ = ["ArchiveFile", "ArchiveStore", "FileWriter", "read_blocks"]
