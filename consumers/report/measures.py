"""Measures that the report, the live view, trackers and evaluation share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

from rft.config import RewardTerm
from rft.environments.base import SUCCESS
from rft.evaluation.tally import Tally, is_answer, lacks_reward
from schemas.events import Member, ScoredExperience

NOT_SCORED = "not scored: this run has only external rewards"
"""What is said of an evaluation whose answers have no rewards. Evaluation groups do not wait for external ones."""
_NOT_CORRECTNESS = ("format", "length_penalty")


def correctness_function(terms: Sequence[RewardTerm]) -> str:
    """Return the reward function that decides whether an answer is correct: the first that judges more than form."""
    functions = [term.function for term in terms] or ["exact_match"]
    return next((function for function in functions if function not in _NOT_CORRECTNESS), functions[0])


def has_share(scored: ScoredExperience, function: str) -> bool:
    """Return whether what decides about an answer lies between 0 and 1, so that it can be called right or wrong."""
    if scored.experience.finish_reason == "error" or SUCCESS in scored.experience.rewards:
        return True
    return 0.0 <= scored.rewards.get(function, scored.reward) <= 1.0


def without_gradient(metrics: Mapping[str, float]) -> bool:
    """Return whether a step changed nothing: its gradient was 0, or none of its updates had a finite one.

    While a value head warms up, it learns and the policy's gradient is 0.
    """
    if metrics.get("skipped", 0.0) >= 1.0:
        return True
    return metrics.get("grad_norm", 1.0) == 0.0 and not metrics.get("value_warmup")


def score_text(score: float, *, share: bool) -> str:
    """Return ``34.8%`` for a share of right answers, ``1.250`` for a mean reward."""
    return f"{score:.1%}" if share else f"{score:.3f}"


def is_correct(scored: ScoredExperience, function: str) -> bool:
    """Return whether ``function`` gave a held-out answer full marks. A failed rollout is not correct.

    An environment that says how well its episode went decides instead.
    """
    if scored.experience.finish_reason == "error":
        return False
    if SUCCESS in scored.experience.rewards:
        return scored.experience.rewards[SUCCESS] >= 1.0
    return scored.rewards.get(function, scored.reward) >= 1.0


def add_answer(tally: Tally, number: int, scored: ScoredExperience, function: str) -> None:
    """Add one answer to held-out task ``number``; ``function`` decides whether it is correct."""
    tally.add(
        number,
        scored.experience.experience_id,
        right=is_correct(scored, function),
        reward=scored.reward,
        expected=scored.release_size,
        metadata=scored.experience.metadata,
        unrewarded=lacks_reward(scored),
        counted=is_answer(scored),
        bounded=has_share(scored, function),
    )


def sum_stats(members: Collection[Member], names: Iterable[str]) -> dict[str, float]:
    """Sum the explorers' own counters of these ``names``."""
    return {name: round(sum(member.stats.get(name, 0.0) for member in members), 3) for name in names}


@dataclass(frozen=True, slots=True)
class TrainerSeconds:
    """A trainer's time by activity, in seconds."""

    step: float = 0.0
    """Forward, backward and optimizer."""
    read: float = 0.0
    """Reading and decoding experiences that were on the log already."""
    publish: float = 0.0
    """Writing weights, publishing the step and announcing its version."""
    checkpoint: float = 0.0
    idle: float = 0.0
    """Waiting for experiences."""

    def __add__(self, other: TrainerSeconds) -> TrainerSeconds:
        mine, theirs = astuple(self), astuple(other)
        return TrainerSeconds(*(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def total(self) -> float:
        return sum(astuple(self))

    @property
    def idle_share(self) -> float:
        """Share of the time that was spent waiting for experiences; 0 if nothing was measured."""
        return self.idle / self.total if self.total else 0.0


def trainer_seconds(metrics: Mapping[str, float]) -> TrainerSeconds:
    """Read the seconds from a TrainingStep's metrics. Activities that a trainer does not measure count as 0."""
    return TrainerSeconds(**{item.name: metrics.get(f"{item.name}_s", 0.0) for item in fields(TrainerSeconds)})
