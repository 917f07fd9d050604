"""What is held out, and how it is evaluated."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt, model_validator

from rft.config.section import Name, Section

MAIN_SET = "held_out"
"""The set that ``[eval]`` itself describes, with the tasks of ``[tasks]``."""


class EvalSetConfig(Section):
    """A further held-out set. What is not set here is as in ``[eval]``, ``[tasks]`` and ``[rollout]``."""

    source: str | None = None
    """As ``tasks.source``, which it is by default. None of its prompts is trained on."""
    options: dict[str, Any] | None = None
    """Passed to the source; by default ``tasks.options`` if the source is the training one."""
    prompt_template: str | None = None
    """As ``tasks.prompt_template``."""
    tasks: int = Field(default=100, ge=1)
    """Tasks before and after training."""
    interim_tasks: int | None = Field(default=None, ge=1)
    """Tasks of an evaluation while training."""
    every_versions: int | None = Field(default=None, ge=0)
    """Evaluate every so many weight versions while training; 0: only before and after."""
    samples: int | None = Field(default=None, ge=1, le=1024)
    """Answers to each task."""
    temperature: float | None = Field(default=None, ge=0)
    """0 is greedy."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of one answer."""
    pass_at: list[PositiveInt] | None = None
    """The k of pass@k."""
    difficulty: str | None = None
    """See ``eval.difficulty``."""


class EvalConfig(Section):
    tasks: int = Field(default=500, ge=0)
    """Held-out tasks; 0 turns this evaluation off, those of ``[eval.sets]`` stay."""
    every_versions: int = Field(default=0, ge=0)
    """Evaluate every so many weight versions while training; 0: only before and after."""
    interim_tasks: int = Field(default=100, ge=1)
    """Held-out tasks of an evaluation while training."""
    samples: int = Field(default=1, ge=1, le=1024)
    """Answers to each task. With several, pass@k and mean@k are told; they need a ``temperature`` above 0."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of one answer; ``rollout.max_tokens`` if not set."""
    pass_at: list[PositiveInt] | None = None
    """The k of pass@k, each at most ``samples``; by default 1, 2, 4, 8, … and ``samples``."""
    difficulty: str | None = None
    """Key of the tasks' metadata (``a.b`` for nested ones) by which results are told apart. By default tasks are put
    together by the share of right answers in the set's first evaluation."""
    sets: dict[Name, EvalSetConfig] = {}
    """Further held-out sets by name."""


class EvalSet(Section):
    """A held-out set with nothing left open."""

    name: str
    source: str
    options: dict[str, Any]
    prompt_template: str
    tasks: int
    interim_tasks: int
    """At most ``tasks``."""
    every_versions: int
    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    pass_at: tuple[int, ...]
    """Ascending."""
    difficulty: str | None

    @model_validator(mode="after")
    def _consistent(self) -> EvalSet:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples = {self.samples} with temperature = 0 would give the same answer {self.samples} times; "
                "set a temperature"
            )
        if self.pass_at and self.pass_at[-1] > self.samples:
            raise ValueError(f"pass_at = {self.pass_at[-1]} needs at least as many samples, there are {self.samples}")
        return self

    @property
    def title(self) -> str:
        """For people."""
        return "held-out" if self.name == MAIN_SET else self.name

    def size_at(self, *, whole: bool) -> int:
        """Tasks of an evaluation before or after training (``whole``), or of one in between."""
        return self.tasks if whole else self.interim_tasks


def powers_of_two(samples: int) -> tuple[int, ...]:
    """1, 2, 4, … up to ``samples``, and ``samples``."""
    return tuple(sorted({samples, *(1 << power for power in range(samples.bit_length()))}))
