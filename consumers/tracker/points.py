"""From a run's events to what trackers are given. Pure."""

from __future__ import annotations

from consumers.report.measures import correctness_function, is_correct
from rft.config import Config
from rft.errors import DecodeError
from rft.evaluation.ids import parse_key
from rft.evaluation.tally import Tally, classes_of
from rft.log.events import Event
from rft.stream.fence import Fence
from rft.telemetry.base import Point
from schemas.events import ScoredExperience, TrainingStep, WeightVersion

ENTITIES = ("weights", "steps", "ready")
"""What must be fed, in any order; this one gives every point."""


class PointMaker:
    """Folds events of ``weights``, ``steps`` and ``ready``; what is told twice gives one point."""

    def __init__(self, config: Config) -> None:
        self._main = config.trainer.model_key
        self._sets = config.eval_sets
        self._function = correctness_function(config.processor.rewards)
        self._fence = Fence()
        self._steps: dict[str, int] = {}
        """Newest step told, by trainer."""
        self._step_of: dict[int, int] = {}
        """Gradient steps behind each weight version."""
        self._whole = {0}
        self._tallies: dict[tuple[str, int], Tally] = {}
        self._told: set[tuple[str, int]] = set()
        self._at_ms: dict[tuple[str, int], int] = {}
        self.unreadable = 0
        """Events that could not be decoded."""

    def feed(self, event: Event) -> list[Point]:
        """Take in one event and say which points are complete; what cannot be decoded tells nothing."""
        group = parse_key(event.key) if event.entity == "ready" else None
        if event.entity == "ready" and group is None:
            return []
        try:
            record = event.record()
        except DecodeError:
            self.unreadable += 1
            return []
        if isinstance(record, TrainingStep):
            return self._step(record)
        if isinstance(record, WeightVersion) and record.model == self._main:
            self._step_of[record.version] = record.step
            if record.final:
                self._whole.add(record.version)
            return [point for key in self._tallies if key[1] == record.version for point in self._evaluation(key)]
        if isinstance(record, ScoredExperience) and group is not None and group.set_name in self._sets:
            key = group.set_name, group.version
            self._tallies.setdefault(key, Tally()).add(
                group.number,
                record.experience.experience_id,
                right=is_correct(record, self._function),
                reward=record.reward,
                expected=record.release_size,
                metadata=record.experience.metadata,
            )
            self._at_ms[key] = event.timestamp_ms
            return self._evaluation(key)
        return []

    def _step(self, record: TrainingStep) -> list[Point]:
        counts = self._fence.counts(record)
        # A redone step is the one that was told already.
        if not counts or record.kind != "step" or record.step <= self._steps.get(record.model, 0):
            return []
        self._steps[record.model] = record.step
        prefix = "train" if record.model == self._main else f"train-{record.model}"
        values = {f"{prefix}/{name}": value for name, value in sorted(record.metrics.items())}
        return [Point(record.step, values | {f"{prefix}/version": float(record.version)}, record.created_at)]

    def _evaluation(self, key: tuple[str, int]) -> list[Point]:
        name, version = key
        tally, chosen = self._tallies[key], self._sets[name]
        step = self._step_of.get(version)
        if step is None or key in self._told or tally.answered < chosen.size_at(whole=version in self._whole):
            return []
        self._told.add(key)
        found = tally.result(chosen, classes_of(chosen, [tally]))
        values = {f"eval/{name}/{number}": float(found[number]) for number in ("accuracy", "standard_error", "reward")}
        values |= {f"eval/{name}/pass_at_{k}": share for k, share in found["pass_at"].items()}
        return [Point(step, values | {f"eval/{name}/version": float(version)}, self._at_ms[key])]
