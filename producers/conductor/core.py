"""What the conductor decides from what it reads: ``step(event) -> orders`` (pure).

A run has four phases: no weights yet; the evaluation before training; training; the evaluation after it.
The phase is not stored anywhere. It follows from the log, so a conductor that is killed and started again
goes on where the log stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from producers.conductor.evaluation import EvaluationPlan, Evaluator, Outcome
from producers.conductor.pacing import Pace, Pacer
from rft.config import MAIN_SET
from rft.stream.fence import Fence
from schemas.events import ScoredExperience, Task, TrainingStep, WeightVersion


@dataclass(frozen=True, slots=True)
class TrainTaskRequest:
    """Issue train task ``number``, for explorers that hold at least ``min_version``."""

    number: int
    min_version: int


@dataclass(frozen=True, slots=True)
class EvalTaskRequest:
    """Issue held-out task ``number`` of a set for the evaluation of ``version``."""

    version: int
    number: int
    set_name: str = MAIN_SET


Order = TrainTaskRequest | EvalTaskRequest
Seen = Task | WeightVersion | TrainingStep | ScoredExperience


class Conductor:
    """The state of a run, rebuilt from its log.

    Feed it every event with :meth:`step`. It orders nothing until :meth:`caught_up` says that all that was in
    the log at its start has been fed: until then it cannot know what was issued.
    """

    def __init__(self, pace: Pace, plans: Mapping[str, EvaluationPlan], model: str, mode: str = "online") -> None:
        """``mode`` is ``run.mode``."""
        self._pace = pace
        self._mode = mode
        self._model = model
        self._caught_up = False
        self._fence = Fence()
        self._newest: int | None = None
        """Newest weight version that explorers can have."""
        self._baseline: int | None = None
        self._final: int | None = None
        self._fertile = 0
        """Tasks retired when the newest gradient step was taken."""
        self.pacer = Pacer(pace)
        self.evaluator = Evaluator(plans)

    def caught_up(self) -> list[Order]:
        """All that was in the log at the start has been fed."""
        self._caught_up = True
        if self._newest is not None and self._final is None and self.evaluator.wants_between(self._newest):
            self.evaluator.want(self._newest, whole=False)
        return self._orders()

    def step(self, event: Seen) -> list[Order]:
        """Take an event in and say what is to be issued now. Each order is given once."""
        self._observe(event)
        return self._orders() if self._caught_up else []

    def _observe(self, event: Seen) -> None:
        match event:
            case Task(split="eval"):
                self.evaluator.saw_task(event.group_id)
            case Task() if event.number >= 0:  # imported tasks are nobody's to pace
                self.pacer.saw_task(event.number, event.min_version)
            case ScoredExperience() if event.experience.split == "train":
                if not self._pace.trains and event.experience.number >= 0:
                    self.pacer.saw_retired([event.experience.number])
                    self._fertile = self.pacer.retired
            case ScoredExperience():
                reward = event.reward if event.verdict == "train" else 0.0
                answer = event.experience
                self.evaluator.saw_result(answer.group_id, answer.experience_id, reward, event.release_size)
            case WeightVersion() if event.model == self._model:
                self._saw_weights(event)
            case TrainingStep() if event.model == self._model and self._fence.counts(event):
                self.pacer.saw_retired(event.retired)
                self.pacer.saw_version(event.next_version, event.step)
                self.pacer.saw_step(event.step)
                if event.kind == "step":
                    self._fertile = self.pacer.retired
            case _:
                pass

    def _saw_weights(self, event: WeightVersion) -> None:
        self._newest = max(event.version, -1 if self._newest is None else self._newest)
        self.pacer.saw_version(event.version, event.step)
        # Not the end of a shorter run that this one continues; where data decide, any end is one.
        if event.final and (event.step >= self._pace.steps or self._mode == "train"):
            self._final = event.version
            self.evaluator.want(event.version, whole=True)
        elif self._caught_up and event.version == self._newest and self.evaluator.wants_between(event.version):
            self.evaluator.want(event.version, whole=False)

    @property
    def lacks_weights(self) -> bool:
        """No version is on the log."""
        return self._newest is None

    @property
    def training(self) -> bool:
        """Whether the evaluation before training is complete."""
        return self._baseline is not None and self.evaluator.complete(self._baseline)

    @property
    def done(self) -> bool:
        """Whether the final weights are known and evaluated; when exploring, whether all tasks are scored."""
        if self._mode == "explore":
            return self._caught_up and self.training and self.pacer.retired >= self._pace.tasks
        return self._caught_up and self._final is not None and self.evaluator.complete(self._final)

    @property
    def barren(self) -> int:
        """Train tasks retired since the newest gradient step: the trainer could use none of them."""
        return self.pacer.retired - self._fertile

    def news(self) -> list[Outcome]:
        """Evaluations that became complete since the last call."""
        return self.evaluator.news()

    def _orders(self) -> list[Order]:
        if self._newest is None:
            return []
        if self._baseline is None:
            self._choose_baseline(self._newest)
        orders: list[Order] = [
            EvalTaskRequest(group.version, group.number, group.set_name) for group in self.evaluator.due()
        ]
        if self.training and self._mode in ("online", "explore"):
            orders += [TrainTaskRequest(number, min_version) for number, min_version in self.pacer.due()]
        return orders

    def _choose_baseline(self, newest: int) -> None:
        """Without a train task in the log, training has not begun: evaluate what it starts from."""
        first = self.evaluator.first_version()
        self._baseline = newest if first is None else first
        if not self.pacer.issued and self._final is None:
            self.evaluator.want(self._baseline, whole=True)
