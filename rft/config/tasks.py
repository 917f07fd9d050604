"""``[tasks]``: where tasks come from, and in which order they are issued."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from rft.config.section import Section
from rft.plugins import FORM, is_plugin, unknown_name

ORDERS = ("sequential", "shuffled", "easy_to_hard", "pass_rate")


class TasksConfig(Section):
    source: str = "reasoning_gym:spell_backward"
    """``reasoning_gym:<dataset>``, ``jsonl:<file>``, ``hf:<owner>/<name>`` (a dataset of the Hugging Face hub),
    ``import:<name>`` of ``[[imports]]``, ``environment`` (seeds of ``rollout.environment``, without end), or
    ``package.module:function`` of your own."""
    revision: str | None = None
    """Branch, tag or commit of the hub's dataset, by default ``main``. See ``policy.revision``."""
    eval_source: str | None = None
    """Another source for held-out tasks. By default ``source`` is split into disjoint training and held-out parts."""
    eval_revision: str | None = None
    """Branch, tag or commit of ``eval_source``; by default ``revision`` if it is the same dataset."""
    options: dict[str, Any] = {}
    """Keyword arguments for the source, e.g. a reasoning-gym dataset's own options."""
    eval_options: dict[str, Any] = {}
    """Keyword arguments for ``eval_source``."""
    prompt_template: str = "{question}"
    """The prompt, made with ``str.format`` from the source's ``question`` and metadata, e.g. ``{word}>``."""
    chat: bool = False
    """Hand each prompt to the model as a user's message, in the chat template of its tokenizer. A task with a list
    ``messages`` of its own begins with those."""
    system_prompt: str | None = None
    """With ``chat``: the instructions before each conversation that does not begin with its own."""
    order: str = "shuffled"
    """Order of training tasks. ``sequential``; ``shuffled``, in a new order each epoch; ``easy_to_hard`` by
    ``difficulty``; ``pass_rate``: tasks whose running pass rate is nearest to ``target_pass_rate`` come first; or
    ``package.module:function`` of your own, which returns an item's index for a task number, the items and their
    history."""
    difficulty: str = "difficulty"
    """For ``easy_to_hard``: the number in a task's metadata that grows with difficulty, ``a.b`` if nested."""
    target_pass_rate: float = Field(default=0.5, ge=0, le=1)
    """For ``pass_rate``: share of right answers at which a task teaches the most."""
    pool: int = Field(default=1000, ge=1)
    """Number of tasks that are taken from an endless source when the order needs to know all tasks or to repeat them:
    with ``easy_to_hard``, ``pass_rate`` and your own."""

    @field_validator("order")
    @classmethod
    def _known_order(cls, order: str) -> str:
        if order not in ORDERS and not is_plugin(order):
            raise ValueError(unknown_name(order, [*ORDERS, FORM]))
        return order
