"""Algorithm and trainer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rft.config.engines import EngineConfig
from rft.config.section import Name, Section


class AlgorithmConfig(Section):
    name: Literal["grpo", "sft"] = "grpo"
    """``grpo``: group relative policy optimisation (DeepSeekMath, arXiv:2402.03300). ``sft``: supervised fine-tuning on
    what the policy or an expert wrote, see ``trainer.min_reward``. Decides what ``advantage`` and ``loss`` are unless
    they are set."""
    advantage: Literal["group_normalized", "group_centered", "ones"] | None = None
    """(r - mean) / std within the group (GRPO), the same without the division (Dr. GRPO), or 1 (SFT)."""
    loss: Literal["clipped", "reinforce"] | None = None
    """PPO's clipped ratio (GRPO), or the plain policy gradient (SFT)."""
    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """Lower clip: ratios are clipped to [1 - clip_low, 1 + clip_high]."""
    clip_high: float = Field(default=0.2, ge=0)
    """Upper clip."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Of ``clipped``: a token of negative advantage that has become so many times likelier than it was gives no more
    gradient. For data far from the policy; replays of other data than whole steps set it to 2 if it is not set."""
    kl: Literal["none", "k1", "k2", "k3"] = "none"
    """KL estimator against the initial weights, added to the loss."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL term."""
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"
    """Mean over all tokens of a step, or over sequences of their token means."""


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
    micro_batch_tokens: int = Field(default=16384, ge=1)
    """Most tokens (padding included) of one forward pass."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the trainer's weights."""
    threads: int = Field(default=1, ge=1)
    """CPU threads. A resumed run repeats the interrupted one bit for bit only with the same number."""
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
