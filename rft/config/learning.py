"""The trainer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rft.config.engines import EngineConfig
from rft.config.section import Name, Section


class TrainerConfig(EngineConfig):
    model_key: Name = "policy"
    """Identity of this trainer: key of its weight versions and steps. Two trainers of one identity exclude each other:
    the newer takes over, the older stops."""
    follows: Name | None = None
    """Identity of the trainer that paces the run, if it is not this one: this trainer then learns from what the other's
    policy has written and ends, at the latest, when that has and nothing more comes. Set by ``[trainers.<key>]``."""
    min_reward: float | None = None
    """Experiences of a lower reward are not trained, cause ``filtered``. With ``algorithm.name = "sft"`` this is
    rejection sampling (RAFT, arXiv:2304.06767)."""
    steps: int = Field(default=100, ge=1)
    """Gradient steps of the run."""
    groups_per_step: int = Field(default=16, ge=1)
    """Groups in one step's batch."""
    sync_interval: int = Field(default=1, ge=1)
    """Steps between weight versions."""
    max_staleness: int = Field(default=1, ge=0)
    """0 on-policy, 1 one step off, k asynchronous: weight versions that a token may be old when it is trained."""
    max_barren_groups: int = Field(default=1000, ge=0)
    """Groups in a row that may be retired without one gradient step (all filtered or stale) before the run fails and
    says why; 0: any number."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Of AdamW, after warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global L2 norm."""
    epochs: int = Field(default=1, ge=1)
    """Times that a step goes over its batch."""
    minibatches: int = Field(default=1, ge=1)
    """Parts, whole groups each, that a step's batch is cut into for one optimiser update each. The cut is shuffled anew
    each epoch and follows from the step's number, so a step done again is the same."""
    micro_batch_tokens: int = Field(default=16384, ge=1)
    """Most tokens (padding included) of one forward pass."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the trainer's weights."""
    threads: int = Field(default=1, ge=1)
    """CPU threads. A resumed run repeats the interrupted one bit for bit only with the same number."""
    max_logprob_gap: float | None = Field(default=0.5, gt=0)
    """Limit of ``logprob_gap_mean``, in nats: mean distance of the trainer's log-probabilities from the sampler's, over
    tokens that the very weights of the step had sampled. Beyond it the samples are not what the trainer takes them for
    (another tokenizer, template, dtype or sampling setting), and the trainer says so."""
    on_logprob_gap: Literal["warn", "stop"] = "warn"
    """What then: a warning, at most every 50 steps, or the end of the run."""
    checkpoint_interval: int = Field(default=50, ge=1)
    """Steps between checkpoints (weights, optimiser, RNG and log positions as one atomic unit)."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept on disk."""
    keep_every: int = Field(default=0, ge=0)
    """Checkpoints of every so many steps are kept for ever, beside the newest; 0: none. A multiple of
    ``checkpoint_interval``."""
    keep_versions: int = Field(default=4, ge=2)
    """Published weight versions kept on disk; explorers need the newest only."""
    patience_s: float = Field(default=20.0, ge=0)
    """In the mode ``train``: once something has come, how long nothing more must come, and no step be possible, for the
    training to end before ``steps`` are done; 0: wait for ever."""
    buffer_mb: float = Field(default=256.0, gt=0)
    """Bound of the experience buffer in MiB; when it is full, reading pauses as soon as a step is possible, and what
    is read until then is remembered by its place in the log."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainerConfig:
        if self.keep_every % self.checkpoint_interval:
            raise ValueError(
                f"keep_every = {self.keep_every} must be a multiple of checkpoint_interval = {self.checkpoint_interval}"
            )
        return self


class TrainerOverrides(Section):
    """What a further trainer on the same log has otherwise than the main one."""

    trainer: dict[str, Any] = {}
    """Fields of ``[trainer]`` but for ``model_key`` and ``follows``."""
    algorithm: dict[str, Any] = {}
    """Fields of ``[algorithm]``."""
    buffer: dict[str, Any] = {}
    """Fields of ``[buffer]``."""
    policy: dict[str, Any] = {}
    """Fields of ``[policy]``: ``model`` is what this trainer starts from."""

    @model_validator(mode="after")
    def _own_identity(self) -> TrainerOverrides:
        for name in ("model_key", "follows"):
            if name in self.trainer:
                raise ValueError(f"trainer.{name} cannot be set here: the identity is the table's name")
        return self
