"""``[archive]``: whether and where the topics are copied into files."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from rft.config.section import EntityName, Section


class ArchiveConfig(Section):
    enabled: bool | None = None
    """Copy the topics to ``url`` during the run. By default only with the embedded broker, whose log ends with its
    run."""
    url: str | None = None
    """Folder or fsspec URL (``s3://bucket/path``); by default ``archive`` in the run's folder."""
    entities: tuple[EntityName, ...] = get_args(EntityName)
    """The topics to copy."""
    roll_mb: float = Field(default=64.0, gt=0)
    """A file is finished when it has this many MiB."""
    roll_s: float = Field(default=60.0, gt=0)
    """A file is finished when it is this old. If broker and archiver die together, the events of the unfinished files
    are not in the archive."""
    codec: Literal["null", "deflate"] = "null"
    """Compression of the files. ``deflate`` makes short events 3.5 times smaller at 4 µs each, but events of 1,024
    tokens only a quarter smaller at 180 µs each."""
    skip_missing: bool = False
    """Continue after events that the log deleted before they were copied. The archive then has a gap, which its readers
    report. By default the archiver stops and names the missing range."""
