"""What the report and the live view both measure, defined once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

from rft.config import RewardTerm
from schemas.events import Member, ScoredExperience

_NOT_CORRECTNESS = ("format", "length_penalty")


def correctness_function(terms: Sequence[RewardTerm]) -> str:
    """The reward that says whether an answer is right: the first that judges more than form."""
    functions = [term.function for term in terms] or ["exact_match"]
    return next((function for function in functions if function not in _NOT_CORRECTNESS), functions[0])


def is_correct(scored: ScoredExperience, function: str) -> bool:
    """Whether a held-out answer counts as right: full marks from ``function``. A failed rollout is wrong."""
    if scored.experience.finish_reason == "error":
        return False
    return scored.rewards.get(function, scored.reward) >= 1.0


def summed(members: Collection[Member], names: Iterable[str]) -> dict[str, float]:
    """What explorers say of themselves, added up."""
    return {name: round(sum(member.stats.get(name, 0.0) for member in members), 3) for name in names}


@dataclass(frozen=True, slots=True)
class TrainerSeconds:
    """How a step's time went, in seconds."""

    step: float = 0.0
    """Forward, backward, optimiser."""
    read: float = 0.0
    """Reading and decoding experiences that were there already."""
    publish: float = 0.0
    """Writing weights, announcing the step and its version."""
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
        """Waiting for experiences, of all the time; 0 when nothing was measured."""
        return self.idle / self.total if self.total else 0.0


def trainer_seconds(metrics: Mapping[str, float]) -> TrainerSeconds:
    """From a TrainingStep's metrics; what a trainer does not measure counts as 0."""
    return TrainerSeconds(**{name.name: metrics.get(f"{name.name}_s", 0.0) for name in fields(TrainerSeconds)})
