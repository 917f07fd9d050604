"""How experiences are cleaned, scored and grouped."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rft.config.section import Name, Section


class RewardTerm(Section):
    function: str
    """``exact_match``, ``numeric_match``, ``math_verify``, ``format``, ``length_penalty`` or
    ``package.module:function`` of your own."""
    weight: float = 1.0
    """Factor of this function's value in the sum."""
    options: dict[str, Any] = {}
    """Keyword arguments for the function."""


class ExternalRewardsConfig(Section):
    required: list[Name] = []
    """Sources that every experience for training needs a reward from, by the topic `rewards`; none: rewards of others
    are not waited for. Evaluation groups and demonstrations never wait."""
    optional: list[Name] = []
    """Sources that count when their reward has come by the time that the required ones have."""
    combine: Literal["weighted_sum", "product"] = "weighted_sum"
    """How the reward functions' sum and the sources' values become one reward. Of each source its last revision counts.
    In a product the functions take part only if there are any."""
    weights: dict[str, float] = {}
    """Factor of a source in the weighted sum, 1 if not named; ``functions`` names that of the functions' sum."""
    deadline_s: float = Field(default=7 * 24 * 3600, gt=0)
    """How long a group waits for its rewards, from its first experience on, by the events' own times."""
    on_missing: Literal["default", "without", "discard", "dead_letter"] = "without"
    """What becomes of an experience without all required rewards at the deadline. ``default``: the missing ones are
    ``default_value``. ``without``: it is filtered, its group goes on. ``discard``: its whole group is filtered.
    ``dead_letter``: filtered, and its event goes to `dlq`."""
    default_value: float = 0.0
    """For ``on_missing = "default"``."""
    max_early: int = Field(default=100_000, ge=1)
    """Groups of one partition that only rewards have come for; beyond it the oldest are forgotten (and counted)."""
    skip_deleted: bool = False
    """Go on without waiting experiences that the log has deleted. By default the processor stops and names them."""

    @model_validator(mode="after")
    def _consistent(self) -> ExternalRewardsConfig:
        sources = [*self.required, *self.optional]
        if len(set(sources)) < len(sources):
            raise ValueError("required and optional name a source twice")
        unknown = self.weights.keys() - {*sources, "functions"}
        if unknown:
            raise ValueError(f"weights names {', '.join(sorted(unknown))}, neither required nor optional")
        if self.weights and self.combine == "product":
            raise ValueError("weights are for combine = 'weighted_sum'")
        if self.optional and not self.required:
            raise ValueError("optional sources without required ones: nothing would be waited for")
        if "functions" in sources:
            raise ValueError("'functions' cannot be a source: it names the reward functions")
        return self


class ProcessorConfig(Section):
    external: ExternalRewardsConfig = ExternalRewardsConfig()
    """Rewards that come by the topic `rewards`, at any time."""
    rewards: list[RewardTerm] = [RewardTerm(function="exact_match")]
    """Summed with their weights."""
    group_deadline_s: float = Field(default=300.0, gt=0)
    """A group whose members have not all come by then is released with those that have."""
    min_group_size: int = Field(default=2, ge=1)
    """A group with fewer usable members is filtered as a whole (evaluation groups are exempt)."""
    max_response_tokens: int | None = Field(default=None, ge=1)
    """Experiences with more policy-written tokens are filtered as ``too_long``."""
    drop_truncated: bool = False
    """Filter experiences whose response was cut at ``max_tokens``, cause ``truncated``."""
    drop_uniform_groups: bool = False
    """Filter groups whose rewards are all equal, cause ``uniform``: they carry no gradient in GRPO. True by default
    with ``algorithm.name = "dapo"``, whose dynamic sampling it is."""
    priority: str = "fifo"
    """``fifo``, ``reward_variance`` or ``package.module:function``; higher is trained first."""
    buffer_mb: float = Field(default=512.0, gt=0)
    """Bound, in MiB on the wire, of the members that wait for their groups; beyond it the oldest groups are released
    before their deadline, with the members that have come."""
