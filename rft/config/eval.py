"""``[eval]``: which tasks are held out, and how they are evaluated."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt, model_validator

from rft.config.rollout import RolloutConfig
from rft.config.section import Name, Section
from rft.config.tasks import TasksConfig

MAIN_SET = "held_out"
"""The set that ``[eval]`` itself describes, with the tasks of ``[tasks]``."""


class EvalSetConfig(Section):
    """A further held-out set. Fields that are not set follow ``[eval]``, ``[tasks]`` and ``[rollout]``."""

    source: str | None = None
    """Where its tasks come from, by default ``tasks.source``. None of its prompts is trained on."""
    revision: str | None = None
    """Branch, tag or commit of the hub's dataset; by default ``tasks.revision`` if the source is the training one."""
    options: dict[str, Any] | None = None
    """Keyword arguments for the source; by default ``tasks.options`` if the source is the training one."""
    prompt_template: str | None = None
    """By default ``tasks.prompt_template``."""
    tasks: int = Field(default=100, ge=1)
    """Tasks before and after training."""
    interim_tasks: int | None = Field(default=None, ge=1)
    """Tasks of an evaluation during training."""
    every_versions: int | None = Field(default=None, ge=0)
    """Weight versions between evaluations during training; 0: evaluate only before and after it."""
    samples: int | None = Field(default=None, ge=1, le=1024)
    """Answers to each task."""
    temperature: float | None = Field(default=None, ge=0)
    """0 is greedy."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Token limit of one answer."""
    pass_at: list[PositiveInt] | None = None
    """The k of pass@k."""
    difficulty: str | None = None
    """See ``eval.difficulty``."""


class EvalConfig(Section):
    tasks: int = Field(default=500, ge=0)
    """Held-out tasks; 0 turns this evaluation off, but not those of ``[eval.sets]``."""
    every_versions: int = Field(default=0, ge=0)
    """Weight versions between evaluations during training; 0: evaluate only before and after it."""
    interim_tasks: int = Field(default=100, ge=1)
    """Held-out tasks of an evaluation during training."""
    samples: int = Field(default=1, ge=1, le=1024)
    """Answers to each task. Several answers give pass@k and mean@k; they need a ``temperature`` above 0."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Token limit of one answer; by default ``rollout.max_tokens``."""
    pass_at: list[PositiveInt] | None = None
    """The k of pass@k, each at most ``samples``; by default 1, 2, 4, 8, … and ``samples``."""
    difficulty: str | None = None
    """Key of the tasks' metadata (``a.b`` if nested) by which results are grouped. By default tasks are grouped by
    their share of right answers in the set's first evaluation."""
    sets: dict[Name, EvalSetConfig] = {}
    """Further held-out sets by name."""


class EvalSet(Section):
    """A held-out set with every field decided."""

    name: str
    source: str
    revision: str | None
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
        """The set's name for people."""
        return "held-out" if self.name == MAIN_SET else self.name

    def size_at(self, *, whole: bool) -> int:
        """Return the number of tasks of an evaluation before or after training (``whole``), or of one in between."""
        return self.tasks if whole else self.interim_tasks


def eval_set(name: str, shared: EvalConfig, tasks: TasksConfig, rollout: RolloutConfig) -> EvalSet:
    """Return the held-out set called ``name``, with what it does not set taken from the other sections.

    Raises pydantic's ValidationError when its values contradict each other.
    """
    if name == MAIN_SET:
        own = EvalSetConfig(tasks=max(1, shared.tasks), revision=tasks.eval_revision if tasks.eval_source else None)
        source = tasks.eval_source or tasks.source
        options = tasks.options if tasks.eval_source is None else tasks.eval_options
    else:
        own = shared.sets[name]
        source = own.source or tasks.source
        options = own.options if own.options is not None else {} if own.source else tasks.options

    def chosen(field: str) -> Any:
        value = getattr(own, field)
        return getattr(shared, field) if value is None else value

    samples = chosen("samples")
    return EvalSet(
        name=name,
        source=source,
        revision=own.revision or (tasks.revision if source == tasks.source else None),
        options=options,
        prompt_template=own.prompt_template or tasks.prompt_template,
        tasks=own.tasks,
        interim_tasks=min(own.tasks, chosen("interim_tasks")),
        every_versions=chosen("every_versions"),
        samples=samples,
        temperature=chosen("temperature"),
        top_p=chosen("top_p"),
        max_tokens=chosen("max_tokens") or rollout.max_tokens,
        pass_at=tuple(sorted(set(chosen("pass_at") or powers_of_two(samples)))),
        difficulty=chosen("difficulty"),
    )


def powers_of_two(samples: int) -> tuple[int, ...]:
    """Return 1, 2, 4, … up to ``samples``, and ``samples`` itself."""
    return tuple(sorted({samples, *(1 << power for power in range(samples.bit_length()))}))
