"""``[algorithm]``: what is learned from a batch. docs/algorithms.md has a row for each algorithm."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rft.config.section import Section


class AlgorithmConfig(Section):
    name: str = "grpo"
    """``grpo``, ``dr_grpo``, ``dapo``, ``gdpo``, ``gspo``, ``cispo``, ``sapo``, ``gigpo``, ``rloo``, ``reinforce_pp``,
    ``reinforce_pp_baseline``, ``ppo``, ``opmd``, ``asymre``, ``topr``, ``rec``, ``decoupled_ppo``, ``sft``, ``dpo``,
    ``kto``, ``mix``, ``chord``, ``luffy``, ``distill``, or one of your own, found by entry point. It decides every
    field below that is not set."""
    advantage: str | None = None
    """``group_normalized``, ``group_centered``, ``leave_one_out``, ``batch_normalized``, ``asymmetric``,
    ``log_mean_exp``, ``reward_normalized``, ``ones``; one value a token: ``gae``, ``returns_to_go``, ``teacher_gap``,
    ``teacher_jsd``; one value a turn: ``turn_normalized``, ``gigpo``; or ``package.module:function``."""
    advantage_options: dict[str, Any] = {}
    """Keyword arguments for ``advantage``."""
    loss: str | None = None
    """``clipped``, ``gspo``, ``gspo_token``, ``gmpo``, ``cispo``, ``sapo``, ``reinforce``, ``topr``, ``rec``,
    ``opmd``, ``chord``, ``luffy``, ``kl_cov``, ``dpo``, ``kto``, or ``package.module:function``."""
    loss_options: dict[str, Any] = {}
    """Keyword arguments for ``loss``."""
    clip_low: float | None = Field(default=None, ge=0, le=1)
    """Lower clip of a loss that has one: ratios are clipped to [1 - clip_low, 1 + clip_high]."""
    clip_high: float | None = Field(default=None, ge=0)
    """Upper clip."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For ``clipped``: the dual clip c. A token with a negative advantage gives no gradient once its ratio exceeds c.
    This is for data far from the policy. A replay of anything but whole steps uses 2 if it is not set."""
    kl: str = "none"
    """KL estimator against the initial weights: ``none``, ``k1``, ``k2``, ``k3`` or ``package.module:function``."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL term."""
    kl_in: Literal["loss", "reward"] = "loss"
    """``loss``: the KL term is added to each token's loss. ``reward``: it is subtracted from the reward, token by token
    for advantages that have one value a token, otherwise summed over the sequence. In the reward it is estimated with
    the policy as it was when the step began."""
    kl_unbiased: bool = False
    """Multiply the KL term in the loss by the ratio of the policy to the sampler, through which the gradient also goes
    (DeepSeek-V3.2, arXiv:2512.02556, equation 7). Then the gradient of any estimator is that of the true KL divergence,
    also with samples of an older policy. Without it that of ``k1`` is 0 on-policy, and that of ``k3`` is biased."""
    reference_reset: int = Field(default=0, ge=0)
    """Steps after which the policy becomes the reference of KL terms, ``dpo`` and ``kto``, again and again (TR-DPO,
    arXiv:2404.09656; ProRL, arXiv:2505.24864); 0: the reference stays the initial model. Not with ``trainer.lora``,
    whose reference is the base model."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the policy's entropy. The product is subtracted from each token's loss."""
    aggregation: str | None = None
    """``token_mean``: mean over all tokens of an update; ``sequence_mean``: over sequences of their token means;
    ``sequence_sum``: over sequences of their token sums, divided by ``sum_length``; or ``package.module:function``."""
    row_weight: Literal["sample", "tokens"] = "sample"
    """How a sample of several rows weighs. ``sample``: as one sample that is as long as its rows are on average.
    ``tokens``: as one sample with all the tokens of its rows. With ``sequence_mean`` both are the same."""
    sum_length: int | None = Field(default=None, ge=1)
    """Divisor of ``sequence_sum``; by default ``rollout.max_tokens``."""
    filters: list[str] = []
    """Which samples stay in the loss; the others still count in their group's statistics. ``not_uniform`` keeps groups
    whose rewards differ, ``not_truncated`` keeps answers that ended by themselves, ``best`` keeps the better half of
    each group; or ``package.module:function``."""
    token_filter: str | None = None
    """Which tokens of rollouts stay in the policy's loss: ``high_entropy`` keeps the fifth with the highest entropy,
    ``clip_cov`` leaves out a few that lower the entropy most; or ``package.module:function``. It takes one more pass
    over the step's tokens."""
    token_filter_options: dict[str, Any] = {}
    """Keyword arguments for ``token_filter``."""
    overlong_buffer: int | None = Field(default=None, ge=0)
    """DAPO's soft punishment: each of the last ``overlong_buffer`` tokens before ``rollout.max_tokens`` costs reward,
    linearly up to ``overlong_penalty``. 0: no punishment. By default a fifth of ``rollout.max_tokens`` with ``dapo``,
    otherwise 0."""
    overlong_penalty: float = Field(default=1.0, ge=0)
    """See ``overlong_buffer``."""
    old: Literal["sampler", "trainer"] | None = None
    """The log-probabilities in a ratio's denominator: the sampler's, or the trainer's own from the start of the step
    (the proximal policy of decoupled PPO). With the trainer's, a clip has an effect only if a step makes several
    updates (``trainer.minibatches``, ``trainer.epochs``)."""
    correction: Literal["none", "importance", "tis", "mis"] | None = None
    """Weight of each token: the ratio of the trainer's probability at the start of the step to the sampler's.
    ``importance``: the ratio itself. ``tis``: truncated at ``correction_high``. ``mis``: masked, 0 outside
    ``correction_low`` to ``correction_high``. A correction sets ``old = "trainer"``."""
    correction_level: Literal["token", "sequence", "geometric"] = "token"
    """The ratio of each token, the product of the ratios of its sequence, or their geometric mean."""
    correction_low: float = Field(default=0.5, ge=0)
    """See ``correction``."""
    correction_high: float = Field(default=2.0, gt=0)
    """See ``correction``."""
    rejection: Literal["none", "token", "sequence", "geometric"] = "none"
    """Leave out of the policy's loss what the trainer and the sampler disagree on: tokens whose ratio of the trainer's
    probability at the start of the step to the sampler's is outside ``rejection_low`` to ``rejection_high``, or whole
    sequences by the product (``sequence``) or the geometric mean (``geometric``) of these ratios. It goes with any
    ``correction`` and ``old``."""
    rejection_low: float = Field(default=0.5, ge=0)
    """See ``rejection``. A geometric mean hardly depends on the length; bounds near 1, such as 0.99 and 1.01, suit
    it."""
    rejection_high: float = Field(default=2.0, gt=0)
    """See ``rejection``."""
    off_policy_mask: float | None = Field(default=None, ge=0)
    """Off-policy sequence masking (DeepSeek-V3.2, arXiv:2512.02556, equation 9): tokens with a negative advantage are
    left out of the policy's loss if the mean log-ratio of the sampler to the policy over their sequence exceeds this
    many nats; 0.5 is a beginning."""
    demonstration_peak: float = Field(default=0.9, ge=0, le=1)
    """For ``mix`` and ``chord``: share of demonstrations in the loss after ``demonstration_warmup`` steps."""
    demonstration_share: float | None = Field(default=None, ge=0, le=1)
    """Their share after ``demonstration_decay`` more steps; rollouts have the rest. By default 0.1 with ``mix``, 0.05
    with ``chord``."""
    demonstration_warmup: int = Field(default=0, ge=0)
    """See ``demonstration_peak``."""
    demonstration_decay: int | None = Field(default=None, ge=0)
    """See ``demonstration_share``; by default 0 with ``mix``, 200 with ``chord``."""
    teacher: str | None = None
    """Model folder of the teacher, for ``distill`` or with ``teacher_coef``. It must have the policy's tokens."""
    teacher_coef: float = Field(default=0.0, ge=0)
    """Weight of a teacher's term beside the rewards; 0: none."""
    teacher_term: Literal["gap", "jsd", "k2"] = "gap"
    """What ``teacher_coef`` weighs. ``gap``: log teacher - log π₀ is added to the advantage of each token that the
    policy wrote, with π₀ the policy as the step began: the policy gradient of the reverse KL divergence. ``jsd``: the
    same for the Jensen-Shannon divergence, as in ``teacher_jsd``. ``k2``: (log π - log teacher)² / 2, whose gradient is
    that of the reverse KL divergence, is added to the loss of each such token, outside the clip (KDRL,
    arXiv:2506.02208)."""
    value_coef: float = Field(default=0.5, ge=0)
    """Weight of the value head's loss, for ``gae``."""
    value_clip: float = Field(default=0.2, gt=0)
    """A value moves at most this far, within one step, from what it was when the step began."""
    value_lr_factor: float = Field(default=10.0, gt=0)
    """Ratio of the value head's learning rate to the policy's."""
    value_detach: bool = False
    """Keep the value head's gradient out of the policy's layers."""
    value_warmup: int = Field(default=0, ge=0)
    """In this many first steps only the value head learns, and the policy stays as it is."""
