"""What is asked, and how it is rolled out."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from rft.config.section import Section

ORDERS = ("sequential", "shuffled", "easy_to_hard", "pass_rate")


class TasksConfig(Section):
    source: str = "reasoning_gym:spell_backward"
    """``reasoning_gym:<dataset>``, ``jsonl:<file>``, ``import:<name>`` of ``[[imports]]``, or
    ``package.module:function`` of your own."""
    eval_source: str | None = None
    """Another source for held-out tasks; by default ``source`` split into disjoint train and held-out parts."""
    options: dict[str, Any] = {}
    """Passed to the source, e.g. a reasoning-gym dataset's own options."""
    eval_options: dict[str, Any] = {}
    """Passed to ``eval_source``."""
    prompt_template: str = "{question}"
    """Made with ``str.format`` from the source's ``question`` and metadata, e.g. ``{word}>``."""
    order: str = "shuffled"
    """Order of training tasks. ``sequential``; ``shuffled``, anew each epoch; ``easy_to_hard`` by ``difficulty``;
    ``pass_rate``: those whose running pass rate is nearest to ``target_pass_rate``; or ``package.module:function`` of
    your own, from task number, items and history to an item's index."""
    difficulty: str = "difficulty"
    """For ``easy_to_hard``: the number of the tasks' metadata that is larger for harder ones, ``a.b`` if nested."""
    target_pass_rate: float = Field(default=0.5, ge=0, le=1)
    """For ``pass_rate``: share of right answers at which a task teaches most."""
    pool: int = Field(default=1000, ge=1)
    """Tasks that an endless source is cut to, for orders that need to know them all or to ask them again:
    ``easy_to_hard``, ``pass_rate`` and your own."""

    @field_validator("order")
    @classmethod
    def _known_order(cls, order: str) -> str:
        if order not in ORDERS and ":" not in order:
            raise ValueError(f"must be {', '.join(ORDERS)} or package.module:function")
        return order


class RolloutConfig(Section):
    samples: int = Field(default=8, ge=1, le=1024)
    """Group size: rollouts of each task."""
    max_tokens: int = Field(default=64, ge=1)
    """Most tokens that one rollout may write."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """Sampling temperature of training rollouts; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with at least this probability."""
    workflow: str = "single_turn"
    """``single_turn`` or ``package.module:function``."""
    deadline_s: float = Field(default=120.0, gt=0)
    """A rollout that takes longer is abandoned and tried again."""
    retries: int = Field(default=2, ge=0, le=20)
    """Further tries of a failed rollout; then it is published as failed and its group goes on without it."""
    max_in_flight: int = Field(default=512, ge=1)
    """Rollouts that one explorer runs at once."""
