"""Remembers which rewards of one source are on the log, so that a restarted rewarder publishes none again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

from rft.config import Config
from rft.log.coordinates import EntityPartition
from rft.log.reader import EventReader

KEPT = 100_000
"""Rewards of a partition that are read back, and ids of each partition that are remembered. A rewarder goes no further
beyond its committed offset than a twentieth of it (``MAX_AHEAD`` of the feed), so others may write the rest."""


class KnownRewards:
    """The ids of the samples that have a reward of this source and revision. Thread-safe."""

    def __init__(self, source: str, revision: int) -> None:
        self._source = source
        self._revision = revision
        self._lock = threading.Lock()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._partitions = 1

    def add(self, sample_id: str) -> bool:
        """Remember a sample. False if it was known."""
        with self._lock:
            if sample_id in self._ids:
                return False
            self._ids[sample_id] = None
            while len(self._ids) > KEPT * self._partitions:
                self._ids.popitem(last=False)
            return True

    def __contains__(self, sample_id: str) -> bool:
        with self._lock:
            return sample_id in self._ids

    def read(self, config: Config, client_id: str, partitions: Collection[int]) -> None:
        """Read the newest rewards of these partitions. A reward is in the partition of its experience.

        Only headers are read. Raises BrokerError.
        """
        with EventReader(config, client_id, ["rewards"], from_end=True) as reader:
            begins, ends = reader.begin_offsets(), reader.end_offsets()
            self._partitions = max(len(ends), 1)
            for number in partitions:
                at = EntityPartition("rewards", number)
                if at in ends:
                    reader.seek("rewards", number, max(begins[at], ends[at] - KEPT))
            while not reader.caught_up(ends):
                for event in reader.poll(0.2, max_events=5000):
                    if sample_id := self._sample_of(event.headers):
                        self.add(sample_id)

    def _sample_of(self, headers: Collection[tuple[str, bytes | None]]) -> str | None:
        """Return the sample of a reward of ours by the event's id, ``<sample>/<source>/<revision>``."""
        for name, value in headers:
            if name == "ce_id" and value:
                sample_id, _, rest = value.decode("utf-8", "replace").partition(f"/{self._source}/")
                return sample_id if rest == str(self._revision) else None
        return None
