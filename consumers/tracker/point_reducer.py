"""Turns a run's events into points for trackers. Pure."""

from __future__ import annotations

from consumers.report.measures import add_answer, correctness_function
from rft.config import Config
from rft.evaluation.ids import parse_key
from rft.evaluation.tally import Tally, difficulty_classes
from rft.log.events import Event
from rft.log.records import CountedRejects, read_record
from rft.log.topics import ENTITIES as TOPICS
from rft.stream.fence import Fence
from rft.telemetry.base import Point
from schemas.events import ScoredExperience, TrainingStep, WeightVersion

ENTITIES = ("weights", "steps", "ready")
"""The topics to add. Their events may come in any order; in this order none of the points is missed."""


class PointReducer:
    """Folds events of ``weights``, ``steps`` and ``ready`` into points. An event that comes twice gives one point."""

    def __init__(self, config: Config) -> None:
        self._main = config.trainer.model_key
        self._sets = config.eval_sets
        self._function = correctness_function(config.processor.rewards)
        self._fence = Fence()
        self._steps: dict[str, int] = {}
        """The newest step with a point, by trainer."""
        self._version_steps: dict[int, int] = {}
        """Number of gradient steps behind each weight version."""
        self._full_versions = {0}
        """Versions that are evaluated on every task of a set."""
        self._tallies: dict[tuple[str, int], Tally] = {}
        self._complete: set[tuple[str, int]] = set()
        """Evaluations (set, version) with a point."""
        self._at_ms: dict[tuple[str, int], int] = {}
        self._rejects = CountedRejects()

    @property
    def unreadable(self) -> int:
        """Events that are no records of their topics."""
        return self._rejects.counts.total()

    def add(self, event: Event) -> list[Point]:
        """Add one event, and return the points that it completes. What is no record of its topic completes none."""
        group = parse_key(event.key) if event.entity == "ready" else None
        if event.entity == "ready" and group is None:
            return []
        kind = TOPICS[event.entity].record
        assert kind is not None
        record = read_record(event, kind, self._rejects.reject, keyed=False)
        if isinstance(record, TrainingStep):
            return self._step_points(record)
        if isinstance(record, WeightVersion) and record.model == self._main:
            self._version_steps[record.version] = record.step
            if record.final:
                self._full_versions.add(record.version)
            keys = [key for key in self._tallies if key[1] == record.version]
            return [point for key in keys for point in self._evaluation_points(key)]
        if isinstance(record, ScoredExperience) and group is not None and group.set_name in self._sets:
            key = group.set_name, group.version
            add_answer(self._tallies.setdefault(key, Tally()), group.number, record, self._function)
            self._at_ms[key] = event.timestamp_ms
            return self._evaluation_points(key)
        return []

    def _step_points(self, record: TrainingStep) -> list[Point]:
        counts = self._fence.counts(record)
        # A redone step has a point already.
        if not counts or record.kind != "step" or record.step <= self._steps.get(record.model, 0):
            return []
        self._steps[record.model] = record.step
        prefix = "train" if record.model == self._main else f"train-{record.model}"
        values = {f"{prefix}/{name}": value for name, value in sorted(record.metrics.items())}
        return [Point(record.step, values | {f"{prefix}/version": float(record.version)}, record.created_at)]

    def _evaluation_points(self, key: tuple[str, int]) -> list[Point]:
        name, version = key
        tally, eval_set = self._tallies[key], self._sets[name]
        step = self._version_steps.get(version)
        tasks = eval_set.size_at(whole=version in self._full_versions)
        if step is None or key in self._complete or tally.answered < tasks:
            return []
        self._complete.add(key)
        if not tally.scored:
            return []
        result = tally.result(eval_set, difficulty_classes(eval_set, [tally]))
        metrics = ("accuracy", "standard_error", "reward")
        values = {f"eval/{name}/{metric}": float(result[metric]) for metric in metrics if result[metric] is not None}
        values |= {f"eval/{name}/pass_at_{k}": share for k, share in result["pass_at"].items()}
        return [Point(step, values | {f"eval/{name}/version": float(version)}, self._at_ms[key])]
