"""Computes how far a run is from its events. Pure: no broker, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from consumers.report.measures import (
    TrainerSeconds,
    add_answer,
    correctness_function,
    trainer_seconds,
    without_gradient,
)
from infra.launcher.generation_rate import GenerationRate
from rft.config import MAIN_SET, Config
from rft.evaluation.ids import EvalGroup, parse_key
from rft.evaluation.tally import Tally
from rft.log.events import Event
from rft.log.records import CountedRejects, read_record
from rft.log.topics import ENTITIES
from rft.stream.fence import Fence
from schemas.events import Member, ScoredExperience, TrainingStep, WeightVersion

SHOWN_STEPS = 512
"""Newest steps whose reward the live view shows."""
RATE_WINDOW_S = 10.0
ETA_STEPS = 20
"""Recent steps from which the remaining time is estimated."""


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """A process as the live view shows it."""

    name: str
    state: str
    restarts: int
    memory_bytes: int
    note: str = ""
    """What it waits for, if that is worth showing."""


@dataclass(frozen=True, slots=True)
class SampleRollout:
    """One rollout as the live view shows it."""

    prompt: str
    response: str
    answer: str | None
    reward: float
    cause: str | None
    """Why it is filtered; None if it is not."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of the run at one moment."""

    phase: str
    step: int
    steps: int
    version: int
    eta_s: float | None
    rewards: tuple[float, ...]
    accuracies: tuple[tuple[int, float], ...]
    """(version, score) of each complete evaluation of the first held-out set: a share of right answers, or a mean
    reward if the set is one of ``rewarded_sets``."""
    staleness_mean: float
    staleness_max: float
    experiences: int
    experiences_per_s: float
    idle_share: float
    lag: Mapping[str, int]
    dead_letters: int
    further: tuple[tuple[str, int, int], ...] = ()
    """(identity, step, steps) of each further trainer."""
    other_sets: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    """Like ``accuracies``, for the other held-out sets by name."""
    unscored: bool = False
    """Whether evaluations have no scores, because this run has only external rewards."""
    main_set: str = MAIN_SET
    """Name of the first held-out set."""
    rewarded_sets: frozenset[str] = frozenset()
    """Held-out sets whose scores are mean rewards, because rewards outside 0 to 1 are no shares of right answers."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the newest step, see :mod:`rft.training.metrics`."""
    steps_without_gradient: int = 0
    """Newest steps in a row whose gradient was 0."""
    tokens_per_s: float = 0.0
    """Tokens that explorers write."""
    response_tokens: float | None = None
    """Mean number of tokens that the policy wrote in a rollout."""
    sample: SampleRollout | None = None
    """One of the newest rollouts for training."""


class Progress:
    """Folds events of ``steps``, ``weights`` and ``ready`` and offsets of all topics into :class:`Facts`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._function = correctness_function(config.processor.rewards)
        self._fence = Fence()
        self._rejects = CountedRejects()
        self._further = {key: (0, config.of_trainer(key).trainer.steps) for key in config.trainers}
        self._step = 0
        self._version = -1
        self._final_version: int | None = None
        self._rewards: dict[int, float] = {}
        self._created_at: deque[int] = deque(maxlen=ETA_STEPS + 1)
        self._seconds = TrainerSeconds()
        self._staleness = (0.0, 0.0)
        self._ready_done = 0
        self._sets = config.eval_sets
        self._tallies: dict[tuple[str, int], Tally] = {}
        """By held-out set and version."""
        self._published: deque[tuple[float, int]] = deque()
        self._metrics: Mapping[str, float] = {}
        self._steps_without_gradient = 0
        self._generation = GenerationRate()
        self._newest_ready: Event | None = None
        """The newest event of ``ready`` for training, which is decoded only to be shown."""
        self._sample: SampleRollout | None = None
        self._ends: Mapping[str, int] = {}
        self._lags: Mapping[str, int] = {}

    def feed(self, event: Event) -> None:
        """Take in one event. Training groups of ``ready`` are not decoded."""
        if event.entity == "ready":
            group = parse_key(event.key)
            if group is not None:
                self._feed_evaluation(group, event)
            else:
                self._newest_ready = event
            return
        kind = ENTITIES[event.entity].record
        assert kind is not None
        record = read_record(event, kind, self._rejects.reject, keyed=False)
        if isinstance(record, TrainingStep):
            if not self._fence.counts(record):
                return
            if record.model == self._config.trainer.model_key:
                self._feed_step(record)
            elif record.model in self._further:
                self._further[record.model] = record.step, self._further[record.model][1]
        elif isinstance(record, WeightVersion) and record.model == self._config.trainer.model_key:
            self._version = max(self._version, record.version)
            if record.final:
                self._final_version = record.version
        elif isinstance(record, Member):
            self._generation.feed(record)

    def measure(self, now: float, ends: Mapping[str, int], lags: Mapping[str, int]) -> None:
        """Take in the number of events of each topic, and how many of them its consumer group has yet to commit."""
        self._ends = ends
        self._take_sample()
        self._lags = {**lags, "ready": max(0, ends.get("ready", 0) - self._ready_done)}
        self._published.append((now, ends.get("experiences", 0)))
        while len(self._published) > 2 and now - self._published[1][0] >= RATE_WINDOW_S:
            self._published.popleft()

    def facts(self) -> Facts:
        """Return the present facts."""
        complete = {name: self._complete(name) for name in self._sets}
        return Facts(
            phase=self._phase(),
            step=self._step,
            steps=self._config.trainer.steps,
            version=self._version,
            eta_s=self._eta_s(),
            rewards=tuple(self._rewards.values()),
            accuracies=complete.pop(next(iter(self._sets), MAIN_SET), ()),
            staleness_mean=self._staleness[0],
            staleness_max=self._staleness[1],
            experiences=self._ends.get("experiences", 0),
            experiences_per_s=self._rate(),
            idle_share=self._seconds.idle_share,
            lag=self._lags,
            dead_letters=self._ends.get("dlq", 0),
            further=tuple((key, step, steps) for key, (step, steps) in self._further.items()),
            other_sets=complete,
            unscored=any(not tally.scored for tally in self._tallies.values()),
            main_set=next(iter(self._sets), MAIN_SET),
            rewarded_sets=self._rewarded_sets(),
            metrics=self._metrics,
            steps_without_gradient=self._steps_without_gradient,
            tokens_per_s=self._generation.tokens_per_s,
            response_tokens=self._generation.response_tokens,
            sample=self._sample,
        )

    def _feed_step(self, record: TrainingStep) -> None:
        self._ready_done += sum(ref.use == 1 for ref in record.trained) + len(record.dropped)
        if record.kind != "step":
            return
        self._step = max(self._step, record.step)
        self._rewards[record.step] = record.metrics.get("reward_mean", 0.0)
        if len(self._rewards) > SHOWN_STEPS:
            del self._rewards[min(self._rewards)]
        self._created_at.append(record.created_at)
        self._seconds += trainer_seconds(record.metrics)
        self._metrics = record.metrics
        self._steps_without_gradient = self._steps_without_gradient + 1 if without_gradient(record.metrics) else 0
        self._staleness = record.metrics.get("staleness_mean", 0.0), record.metrics.get("staleness_max", 0.0)

    def _feed_evaluation(self, group: EvalGroup, event: Event) -> None:
        # The trainer skips evaluations.
        self._ready_done += 1
        record = read_record(event, ScoredExperience, self._rejects.reject, keyed=False)
        if record is None or group.set_name not in self._sets:
            return
        tally = self._tallies.setdefault((group.set_name, group.version), Tally())
        add_answer(tally, group.number, record, self._function)

    def _take_sample(self) -> None:
        """Decode the newest rollout for training, if there is a new one."""
        event, self._newest_ready = self._newest_ready, None
        record = None if event is None else read_record(event, ScoredExperience, lambda *_: None, keyed=False)
        if record is not None:
            one = record.experience
            self._sample = SampleRollout(one.prompt, one.response, one.answer, record.reward, record.cause)

    def _rewarded_sets(self) -> frozenset[str]:
        return frozenset(name for (name, _), tally in self._tallies.items() if not tally.bounded)

    def _complete(self, name: str) -> tuple[tuple[int, float], ...]:
        """Return (version, score) of each complete evaluation of a set that is scored."""
        as_reward = name in self._rewarded_sets()
        return tuple(
            (version, score)
            for (set_name, version), tally in sorted(self._tallies.items())
            if set_name == name and tally.answered >= self._sets[name].size_at(whole=self._whole(version))
            if (score := tally.mean_reward if as_reward else tally.accuracy) is not None
        )

    def _whole(self, version: int) -> bool:
        return version in (0, self._final_version)

    def _phase(self) -> str:
        if self._version < 0:
            return "starting"
        if self._final_version is not None:
            return self._evaluating("final evaluation", self._final_version) or "finishing"
        evaluating = self._evaluating("evaluation before training", 0) if self._step == 0 else None
        return evaluating or {"explore": "exploring", "eval": "evaluating"}.get(self._config.run.mode, "training")

    def _evaluating(self, what: str, version: int) -> str | None:
        """Describe the evaluation before or after training; None when it is complete."""
        tasks = sum(chosen.tasks for chosen in self._sets.values())
        tallies = (self._tallies.get((name, version)) for name in self._sets)
        seen = sum(tally.answered for tally in tallies if tally)
        return None if seen >= tasks else f"{what}, {seen} of {tasks} tasks"

    def _eta_s(self) -> float | None:
        if len(self._created_at) < 2:
            return None
        pace = (self._created_at[-1] - self._created_at[0]) / 1000 / (len(self._created_at) - 1)
        return max(0.0, pace * (self._config.trainer.steps - self._step))

    def _rate(self) -> float:
        if len(self._published) < 2:
            return 0.0
        (then, before), (now, after) = self._published[0], self._published[-1]
        return (after - before) / (now - then) if now > then else 0.0
