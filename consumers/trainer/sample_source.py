"""Supplies the samples of each step: reads ``ready`` into the buffer and assembles steps from whole groups."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Event as StopEvent

from consumers.trainer.baseline import Baseline
from consumers.trainer.issued_tasks import IssuedTasks
from consumers.trainer.ready_reader import ReadyReader
from consumers.trainer.sample_fetcher import SampleFetcher
from consumers.trainer.upstream import UpstreamTrainer
from rft.config import BufferConfig, Config
from rft.log.coordinates import ReusePosition
from rft.log.events import Event
from rft.log.records import read_record
from rft.log.writer import EventWriter
from rft.telemetry.activity import SHOWN_GROUPS, name_groups, role_activity
from rft.telemetry.input_wait import InputWait
from rft.training.buffer import Drop, GroupBuffer
from rft.training.learner import Learner
from rft.training.priority import make_priority
from rft.training.reuse_pool import ReusePool
from rft.training.sample import Sample, read_sample
from rft.training.sample_group import PriorityOf, SampleGroup
from rft.training.step_assembly import StepAssembly
from schemas.events import ScoredExperience

MAX_UNREPORTED_DROPS = 2000
"""Drops that are not urgent (duplicates) wait for the next step, but no more of them than fit into a small event."""
POLL_S = 0.2


class SampleSource:
    """Holds what was read and not yet trained, within the memory of ``trainer.buffer_mb``."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        reader: ReadyReader,
        fetcher: SampleFetcher,
        pool: ReusePool,
        writer: EventWriter,
    ) -> None:
        """``learner`` and ``pool`` are as a redo has left them. Dead letters go to ``writer``. Raises BrokerError."""
        self._config = config
        self._filter = learner.sample_filter
        self._reader = reader
        self._progress = reader.progress
        self._fetcher = fetcher
        self._pool = pool
        self._writer = writer
        groups_per_step = config.trainer.groups_per_step
        shares = config.buffer.shares(groups_per_step)
        self._max_bytes = int(config.trainer.buffer_mb * 2**20)
        self._buffer = GroupBuffer(
            self._max_bytes,
            self._progress.retired,
            group_priority(config.buffer),
            {kind for kind, count in shares.items() if count} if shares else None,
            stalest_first=config.holds_steps,
        )
        self._assembly = StepAssembly(config.buffer, groups_per_step, self._buffer, pool)
        self._baseline = Baseline(config, learner.step)
        self._seconds = {"idle_s": 0.0, "read_s": 0.0, "held_s": 0.0}
        self._issued = IssuedTasks(config, learner, self._buffer) if config.holds_steps else None
        self._held: list[str] = []
        """Groups that the next step waits for, although it is possible."""
        self._upstream = UpstreamTrainer(config)
        self._input = InputWait(role_activity(), reader.at_end)

    def read(self, version: int, stop: StopEvent) -> bool:
        """Read all that is there, and return whether a step is possible at weight version ``version``.

        Waits a little if none is possible. A full buffer ends the reading as soon as a step is possible. While none
        is, reading goes on: the buffer then keeps pointers, so that the samples that groups lack can arrive.
        Raises BrokerError, MissingRangeError.
        """
        possible = self._step_possible(version)
        while not (possible and self._buffer.full):
            started = time.perf_counter()
            events = self._reader.poll(0.0 if possible else POLL_S)
            polled = time.perf_counter()
            for event in events:
                self._add(event)
            self._seconds["read_s" if possible else "idle_s"] += polled - started
            self._seconds["held_s"] += polled - started if self._held else 0.0
            self._seconds["read_s"] += time.perf_counter() - polled
            if events:
                self._input.came()
            elif not possible:
                self._input.nothing_came("%s", self._awaited())
            if not events or stop.is_set():
                break
            self._upstream.note_progress()
            for event in events:
                self._baseline.note_key(event.key)
            possible = self._step_possible(version)
        possible = self._step_possible(version)
        if possible:
            self._upstream.note_progress()
        return possible

    @property
    def exhausted(self) -> bool:
        """True if no more events will come. Raises BrokerError."""
        if not self._upstream.exhausted:
            return False
        # Nothing comes while the broker is away, either. The question waits for it.
        if self._reader.at_end():
            return True
        self._upstream.note_progress()
        return False

    def take(self) -> list[Sample]:
        """Return the samples of a step that is possible, with their arrays. Raises MissingRangeError, BrokerError."""
        samples = [sample for group in self._assembly.take() for sample in group.trainable]
        self._fetcher.fill(samples)
        return samples

    def mark_trained(self, samples: Sequence[Sample]) -> None:
        """Keep ``samples``, whose step is recorded, for reuse if they may be trained again."""
        self._pool.add_trained(samples)
        self._pool.trim(self._max_bytes - self._buffer.held_bytes)

    @property
    def has_urgent_drops(self) -> bool:
        """True if dropped groups should be recorded before the next step, because the conductor waits for them."""
        return self._buffer.has_unreported_tasks or self._buffer.unreported_drops >= MAX_UNREPORTED_DROPS

    def take_drops(self) -> tuple[list[Drop], list[int], int]:
        """Return the drops to record, the task numbers to retire, and how many drops were duplicates."""
        return self._buffer.take_drops()

    def take_metrics(self) -> dict[str, float]:
        """Return the seconds of waiting and reading since the last call, and the bytes held now.

        ``held_s`` is the part of ``idle_s`` in which a step was possible and held back for slow groups.
        """
        seconds, self._seconds = self._seconds, dict.fromkeys(self._seconds, 0.0)
        return seconds | {"buffer_bytes": float(self._buffer.held_bytes + self._pool.held_bytes)}

    @property
    def reuse_positions(self) -> list[ReusePosition]:
        """Events that were trained and may be trained again."""
        return self._pool.positions

    def close(self) -> None:
        """Disconnect from the trainer that this one follows, and from the tasks."""
        self._upstream.close()
        if self._issued is not None:
            self._issued.close()

    def _awaited(self) -> str:
        """Describe what is missing, such as ``a batch: has 3 of 8 groups; groups 812, 813 lack samples``."""
        if not self._baseline.complete:
            return "the evaluation before training"
        if self._held:
            limit_s = self._config.buffer.hold_s
            return f"{name_groups(self._held)}, too stale after this step (buffer.hold_s = {limit_s:g})"
        lacking = self._buffer.incomplete(SHOWN_GROUPS)
        return f"a batch: {self._assembly.describe()}" + (f"; {name_groups(lacking)} lack samples" if lacking else "")

    def _step_possible(self, version: int) -> bool:
        for groups in (self._buffer, self._pool):
            if not (groups is self._buffer and self._config.buffer.too_stale == "keep"):
                groups.drop_stale(version, self._config.trainer.max_staleness)
        self._held = []
        if not (self._baseline.complete and self._assembly.possible()):
            return False
        if self._issued is not None:
            self._held = self._issued.awaited(version)
            if self._held:
                return False
        # An epoch goes through all of the data, so what the next fetch brings may still belong to this one.
        return not self._assembly.repeats() or self._reader.caught_up

    def _add(self, event: Event) -> None:
        if not self._progress.note_read(event.partition, event.offset):
            return
        scored = read_record(event, ScoredExperience, self._writer.publish_dead_letter)
        if scored is not None and scored.experience.split == "train":
            self._buffer.add(read_sample(event.partition, event.offset, scored, self._filter))
        else:
            self._progress.finish(event.partition, event.offset)


def group_priority(config: BufferConfig) -> PriorityOf:
    """Return the function that ``buffer.priority`` names, on groups."""
    priority = make_priority(config)

    def priority_of(group: SampleGroup) -> float:
        return priority(group.facts)

    return priority_of
