"""``[processor]``: how experiences are cleaned, scored and grouped."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rft.config.section import Name, Section


class RewardTerm(Section):
    function: str
    """``exact_match``, ``numeric_match``, ``math_verify``, ``format``, ``length_penalty``, ``reasoning_gym`` (the
    scorer of the dataset that a task came from) or ``package.module:function`` of your own."""
    weight: float = 1.0
    """Weight of this function's value in the sum."""
    options: dict[str, Any] = {}
    """Keyword arguments for the function."""


class ExternalRewardsConfig(Section):
    required: list[Name] = []
    """Sources from which every experience for training needs a reward on the topic `rewards`. If empty, processors wait
    for no external rewards. Evaluation groups and demonstrations never wait."""
    optional: list[Name] = []
    """Sources whose reward counts if it is there when the required ones are complete."""
    combine: Literal["weighted_sum", "product"] = "weighted_sum"
    """How the sum of the reward functions and the values of the sources become one reward. The last revision of each
    source counts. A product includes the functions only if there are any."""
    weights: dict[str, float] = {}
    """Weight of a source in the weighted sum, by default 1; ``functions`` is the weight of the functions' sum."""
    deadline_s: float = Field(default=7 * 24 * 3600, gt=0)
    """How long a group waits for its rewards after its first experience. Of experiences that waited on the log, the
    timestamps count, as far as they are possible: a producer's clock may be wrong."""
    on_missing: Literal["default", "without", "discard", "dead_letter"] = "without"
    """What happens to an experience that lacks a required reward at the deadline. ``default``: missing rewards become
    ``default_value``. ``without``: it is filtered and its group continues without it. ``discard``: its whole group is
    filtered. ``dead_letter``: it is filtered, and its event goes to `dlq`."""
    default_value: float = 0.0
    """The reward for ``on_missing = "default"``."""
    max_early: int = Field(default=100_000, ge=1)
    """Limit on groups of one partition that have rewards but no experience yet. Beyond it the oldest are forgotten, and
    counted."""
    pacing: Literal["hold", "free"] = "hold"
    """Whether a group that waits for its rewards counts in the bound on groups that are issued and not retired.
    ``hold``: it does, so the run stands still while the slowest rewards fill the bound. ``free``: it does not, once all
    its experiences have come. It counts again when it is released, and the trainer drops it as stale if more than
    ``trainer.max_staleness`` versions have come meanwhile. Groups that still wait when the last step is taken are not
    trained."""
    max_waiting: int = Field(default=256, ge=1)
    """With ``pacing = "free"``: how many groups may wait without counting. All further ones count."""
    skip_deleted: bool = False
    """Continue without waiting experiences that the log has deleted. By default the processor stops and names them."""

    @property
    def frees_slots(self) -> bool:
        """Whether waiting groups give their pacing slots back."""
        return bool(self.required) and self.pacing == "free"

    @model_validator(mode="after")
    def _consistent(self) -> ExternalRewardsConfig:
        sources = [*self.required, *self.optional]
        if len(set(sources)) < len(sources):
            raise ValueError("required and optional name a source twice")
        unknown = self.weights.keys() - {*sources, "functions"}
        if unknown:
            raise ValueError(f"weights names {', '.join(sorted(unknown))}; add it to required or optional")
        if self.weights and self.combine == "product":
            raise ValueError("weights need combine = 'weighted_sum'")
        if self.optional and not self.required:
            raise ValueError("optional sources need a required one: otherwise no group waits for them")
        if self.pacing == "free" and not self.required:
            raise ValueError("pacing = 'free' needs a required source: without one, no group waits for rewards")
        if "functions" in sources:
            raise ValueError("'functions' cannot be a source: it names the reward functions")
        return self


class ProcessorConfig(Section):
    external: ExternalRewardsConfig = ExternalRewardsConfig()
    """Rewards that arrive on the topic `rewards`, at any time."""
    rewards: list[RewardTerm] = [RewardTerm(function="exact_match")]
    """Reward functions. Their values are summed with their weights. If ``tasks.source`` names a dataset of
    reasoning-gym, the default is ``reasoning_gym`` with ``tasks.options``."""
    reward_isolation: Literal["process", "none"] = "process"
    """Where functions of your own run, and ``format`` and ``reasoning_gym``, whose time has no bound. ``process``: in a
    process beside each processor, so that one that hangs or dies fails its sample only. ``none``: in the processor,
    without ``reward_memory_mb``. There, one that hangs in Python is interrupted after ``reward_deadline_s``; in C code
    it stops the processor for ``launcher.stall_s``."""
    reward_deadline_s: float = Field(default=10.0, gt=0)
    """A call of a reward function that takes longer fails its sample, and its process is replaced. Slow rewards belong
    on the topic `rewards`: no other experience is scored meanwhile."""
    reward_memory_mb: int | None = Field(default=2048, ge=64)
    """MiB of data that the process of the reward functions may hold; ``none``: no limit."""
    group_deadline_s: float = Field(default=300.0, gt=0)
    """How long a group waits for all of its experiences. Then it is released with those that have come."""
    min_group_size: int = Field(default=2, ge=1)
    """A group with fewer usable samples is filtered as a whole. Evaluation groups are exempt."""
    max_response_tokens: int | None = Field(default=None, ge=1)
    """Experiences with more policy-written tokens are filtered as ``too_long``."""
    drop_truncated: bool = False
    """Filter experiences whose response was cut at ``max_tokens``, cause ``truncated``."""
    drop_uniform_groups: bool = False
    """Filter groups whose rewards are all equal, cause ``uniform``: they give no gradient in GRPO. By default true with
    ``algorithm.name = "dapo"``, as its dynamic sampling, and otherwise false."""
    priority: str = "fifo"
    """Priority of a group: ``fifo``, ``reward_variance`` or ``package.module:function``. Higher is trained first."""
    buffer_mb: float = Field(default=512.0, gt=0)
    """Limit, in MiB on the wire, on experiences that wait for their groups. Beyond it the oldest groups are released
    before their deadline, with the experiences that have come."""
