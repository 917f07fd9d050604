"""The archive: topics copied into Avro container files, in a folder or at any fsspec URL.

One file holds one stretch of one partition, ``<topic>/<topic>.<partition>.<first>-<end>.avro`` (``end`` exclusive), so
the names alone tell what is there and what is missing. A file has its name only when it is whole.
"""

from __future__ import annotations

from rft.log.archive.files import ArchiveFile
from rft.log.archive.reading import read_blocks
from rft.log.archive.store import ArchiveStore
from rft.log.archive.writing import FileWriter

__all__ = ["ArchiveFile", "ArchiveStore", "FileWriter", "read_blocks"]
