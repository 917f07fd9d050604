"""Defines the coordinates of events and partitions in the log.

A field named ``entity`` holds one of :data:`rft.log.topics.ENTITIES`. Each class is a tuple, so it compares, hashes and
unpacks as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class EntityPartition(NamedTuple):
    """Names one partition of one of our topics."""

    entity: str
    partition: int


class LogPosition(NamedTuple):
    """Locates one event within a topic that the context names."""

    partition: int
    offset: int


class ReusePosition(NamedTuple):
    """Locates an event of ``ready`` that was trained ``uses`` times and may be trained again."""

    partition: int
    offset: int
    uses: int


Offsets = Mapping[int, int]
"""Maps partitions of one topic to offsets."""
