"""Decides which tasks are issued: ``step(event) -> requests`` (pure).

A run has four phases: no weights yet; the evaluation before training; training; the evaluation after it.
The phase is not stored anywhere. It follows from the log, so a conductor that is killed and started again
goes on from the end of the log.
"""

from __future__ import annotations

from collections.abc import Mapping

from producers.conductor.evaluation import EvaluationPlan, Evaluator, Outcome
from producers.conductor.pacing import Pace, Pacer
from producers.conductor.task_requests import EvalTaskRequest, TaskRequest, TrainTaskRequest
from rft.evaluation.tally import is_answer, lacks_reward
from rft.stream.deleted_samples import task_number
from rft.stream.fence import Fence
from rft.stream.waiting_samples import samples_of
from schemas.events import ScoredExperience, Task, TrainingStep, Waiting, WeightVersion

FAILED_CAUSES = ("rollout_failed", "score_failed")
"""Causes of filtered experiences that say that something is broken, not that a sample is of no use."""
ConductorInput = Task | WeightVersion | TrainingStep | ScoredExperience | Waiting


class Conductor:
    """The state of a run, rebuilt from its log.

    Feed it every event with :meth:`step`. It requests nothing until :meth:`caught_up` is called, after all that was
    on the log at the start has been fed: until then it cannot know what was issued.
    """

    def __init__(self, pace: Pace, plans: Mapping[str, EvaluationPlan], model: str, mode: str = "online") -> None:
        """Begin with an empty log. ``mode`` is ``run.mode``."""
        self._pace = pace
        self._mode = mode
        self._model = model
        self._caught_up = False
        self._fence = Fence()
        self._newest: int | None = None
        """Newest weight version that explorers can have."""
        self._baseline: int | None = None
        """Version that is evaluated before training."""
        self._final: int | None = None
        self._retired_at_step = 0
        """Tasks retired when the newest gradient step was taken."""
        self.failed_answers = 0
        """Held-out answers in a row that failed, since the conductor has caught up."""
        self.pacer = Pacer(pace)
        self.evaluator = Evaluator(plans)

    def caught_up(self) -> list[TaskRequest]:
        """Note that all that was on the log at the start has been fed, and return the first requests."""
        self._caught_up = True
        if self._newest is not None and self._final is None and self.evaluator.wants_between(self._newest):
            self.evaluator.want(self._newest, whole=False)
        return self._requests()

    def step(self, event: ConductorInput) -> list[TaskRequest]:
        """Take an event in and return the tasks to issue now. Each is requested once."""
        self._observe(event)
        return self._requests() if self._caught_up else []

    def _observe(self, event: ConductorInput) -> None:
        match event:
            case Task(split="eval"):
                self.evaluator.saw_task(event.group_id)
            case Task() if event.number >= 0:  # imported tasks have no number and are not paced
                self.pacer.saw_task(event.number, event.min_version)
            case ScoredExperience() if event.experience.split == "train":
                if not self._pace.trains and event.experience.number >= 0:
                    self.pacer.saw_retired([event.experience.number])
                    self._retired_at_step = self.pacer.retired
            case ScoredExperience():
                reward: float | None = event.reward if event.verdict == "train" else 0.0
                if lacks_reward(event):
                    reward = None
                answer = event.experience
                if self._caught_up:
                    self.failed_answers = self.failed_answers + 1 if event.cause in FAILED_CAUSES else 0
                self.evaluator.saw_result(
                    answer.group_id, answer.experience_id, reward, event.release_size, counted=is_answer(event)
                )
            case Waiting():
                self.pacer.saw_waiting(task_number(event.group_id), _lacks_only_rewards(event))
            case WeightVersion() if event.model == self._model:
                self._saw_weights(event)
            case TrainingStep() if event.model == self._model and self._fence.counts(event):
                self.pacer.saw_retired(event.retired)
                self.pacer.saw_version(event.next_version, event.step)
                self.pacer.saw_step(event.step)
                if event.kind == "step":
                    self._retired_at_step = self.pacer.retired
            case _:
                pass

    def _saw_weights(self, event: WeightVersion) -> None:
        self._newest = max(event.version, -1 if self._newest is None else self._newest)
        self.pacer.saw_version(event.version, event.step)
        # The end of a shorter run that this one continues does not count. In mode "train" the data decide the end.
        if event.final and (event.step >= self._pace.steps or self._mode == "train"):
            self._final = event.version
            self.evaluator.want(event.version, whole=True)
        elif self._caught_up and event.version == self._newest and self.evaluator.wants_between(event.version):
            self.evaluator.want(event.version, whole=False)

    @property
    def lacks_weights(self) -> bool:
        """Whether no version is on the log."""
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
    def starved(self) -> int:
        """Train tasks retired since the newest gradient step: the trainer could use none of them."""
        return self.pacer.retired - self._retired_at_step

    def take_outcomes(self) -> list[Outcome]:
        """Return the evaluations that became complete since the last call."""
        return self.evaluator.take_outcomes()

    def _requests(self) -> list[TaskRequest]:
        if self._newest is None:
            return []
        if self._baseline is None:
            self._choose_baseline(self._newest)
        requests: list[TaskRequest] = [
            EvalTaskRequest(group.version, group.number, group.set_name) for group in self.evaluator.take_due()
        ]
        if self.training and self._mode in ("online", "explore"):
            requests += [TrainTaskRequest(number, min_version) for number, min_version in self.pacer.take_due()]
        return requests

    def _choose_baseline(self, newest: int) -> None:
        """Evaluate what training starts from. It has not begun if no train task is on the log."""
        first = self.evaluator.first_version()
        self._baseline = newest if first is None else first
        if not self.pacer.issued and self._final is None:
            self.evaluator.want(self._baseline, whole=True)


def _lacks_only_rewards(group: Waiting) -> bool:
    """Return whether all rows of all samples of a group have come, and it is not released."""
    complete = sum(sample.complete for sample in samples_of(group))
    return 0 < group.group_size <= complete and not group.released
