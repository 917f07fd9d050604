"""What is learned from a batch; docs/algorithms.md has a row for each algorithm."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rft.config.section import Section


class AlgorithmConfig(Section):
    name: str = "grpo"
    """``grpo``, ``dr_grpo``, ``dapo``, ``gspo``, ``cispo``, ``sapo``, ``rloo``, ``reinforce_pp``,
    ``reinforce_pp_baseline``, ``ppo``, ``opmd``, ``asymre``, ``topr``, ``rec``, ``decoupled_ppo``, ``sft``, ``dpo``,
    ``kto``, ``mix``, ``chord``, ``distill``, or one of your own, found by entry point. Decides every field below that
    is not set."""
    advantage: str | None = None
    """``group_normalized``, ``group_centered``, ``leave_one_out``, ``batch_normalized``, ``asymmetric``,
    ``log_mean_exp``, ``ones``; by token ``gae``, ``returns_to_go``, ``teacher_gap``; or ``package.module:function``."""
    advantage_options: dict[str, Any] = {}
    """Keyword arguments for ``advantage``."""
    loss: str | None = None
    """``clipped``, ``gspo``, ``cispo``, ``sapo``, ``reinforce``, ``topr``, ``rec``, ``opmd``, ``chord``, ``dpo``,
    ``kto``, or ``package.module:function``."""
    loss_options: dict[str, Any] = {}
    """Keyword arguments for ``loss``."""
    clip_low: float | None = Field(default=None, ge=0, le=1)
    """Lower clip of a loss that has one: ratios are clipped to [1 - clip_low, 1 + clip_high]."""
    clip_high: float | None = Field(default=None, ge=0)
    """Upper clip."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Of ``clipped``: a token of negative advantage that has become so many times likelier than it was gives no more
    gradient. For data far from the policy; replays of other data than whole steps set it to 2 if it is not set."""
    kl: str = "none"
    """KL estimator against the initial weights: ``none``, ``k1``, ``k2``, ``k3`` or ``package.module:function``."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL term."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Added to each token's loss, or subtracted from the reward: by token for advantages by token, else summed over the
    sequence. In the reward it is estimated with the policy as the step began."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the policy's entropy, which is subtracted from each token's loss."""
    aggregation: str | None = None
    """``token_mean``: mean over all tokens of an update; ``sequence_mean``: over sequences of their token means;
    ``sequence_sum``: over sequences of their token sums, divided by ``sum_length``; or ``package.module:function``."""
    sum_length: int | None = Field(default=None, ge=1)
    """The constant of ``sequence_sum``; by default ``rollout.max_tokens``."""
    filters: list[str] = []
    """Samples left out of the loss, though not of their group's statistics: ``not_uniform`` keeps groups whose rewards
    differ, ``not_truncated`` what ended by itself, ``best`` the better half of each group; or
    ``package.module:function``."""
    overlong_buffer: int | None = Field(default=None, ge=0)
    """The last so many of ``rollout.max_tokens`` cost reward, linearly up to ``overlong_penalty`` (DAPO). 0: none; by
    default a fifth of ``rollout.max_tokens`` with ``dapo``, else none."""
    overlong_penalty: float = Field(default=1.0, ge=0)
    """See ``overlong_buffer``."""
    old: Literal["sampler", "trainer"] | None = None
    """Whose log-probabilities ratios are taken against: the sampler's, or the trainer's own as the step began (the
    proximal policy of decoupled PPO). With the latter a clip has a meaning only with several updates a step
    (``trainer.minibatches``, ``trainer.epochs``)."""
    correction: Literal["none", "importance", "tis", "mis"] | None = None
    """Weight of each token by trainer's (as the step began) over sampler's probability: ``importance`` as it is;
    ``tis``: truncated at ``correction_high``; ``mis``: masked, 0 outside ``correction_low`` to ``correction_high``.
    Needs ``old = "trainer"``, which it sets."""
    correction_level: Literal["token", "sequence"] = "token"
    """Ratio of each token, or the product over its sequence."""
    correction_low: float = Field(default=0.5, ge=0)
    """See ``correction``."""
    correction_high: float = Field(default=2.0, gt=0)
    """See ``correction``."""
    demonstration_peak: float = Field(default=0.9, ge=0, le=1)
    """Of ``mix`` and ``chord``: share of demonstrations in the loss after ``demonstration_warmup`` steps …"""
    demonstration_share: float | None = Field(default=None, ge=0, le=1)
    """… and their share after ``demonstration_decay`` more steps; the rest is the rollouts'. By default 0.1 with
    ``mix``, 0.05 with ``chord``."""
    demonstration_warmup: int = Field(default=0, ge=0)
    """See ``demonstration_peak``."""
    demonstration_decay: int | None = Field(default=None, ge=0)
    """See ``demonstration_share``; by default 0 with ``mix``, 200 with ``chord``."""
    teacher: str | None = None
    """Model folder of ``distill``'s teacher; its tokens must be the policy's."""
    value_coef: float = Field(default=0.5, ge=0)
    """Weight of the value head's loss (``gae``)."""
    value_clip: float = Field(default=0.2, gt=0)
    """Values are learned within this distance of what they were as the step began."""
    value_lr_factor: float = Field(default=10.0, gt=0)
    """The value head's learning rate over the policy's."""
    value_detach: bool = False
    """The value head's gradient does not reach the policy's layers."""
