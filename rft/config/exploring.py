"""What is asked, and how it is rolled out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rft.config.section import Section


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
    order: Literal["sequential", "shuffled"] = "shuffled"
    """Order of training tasks; shuffled anew each epoch."""


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


class PolicyConfig(Section):
    model: str = "model"
    """Folder in Hugging Face layout (config, tokenizer, safetensors), relative to the working directory."""
    engine: Literal["transformers"] = "transformers"
    """What generates text."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the explorer's weights."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of each explorer."""
    max_batch: int = Field(default=256, ge=1)
    """Most sequences that are generated together."""
