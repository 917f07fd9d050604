"""Defines a composed algorithm: everything that turns rewards into a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rft.algorithms.corrections import Level
from rft.algorithms.inputs import Flags, Floats, Ints, Needs, Sequences, TokenBatch, TokenLoss, Trajectories
from rft.algorithms.token_filters import StepTokens
from rft.algorithms.trajectories import AdvantageEstimate


@dataclass(frozen=True, slots=True)
class ValueHeadSettings:
    """How a value head learns, see :func:`rft.training.value_head.value_loss`."""

    coef: float
    """Weight of its loss."""
    clip: float
    """Clip range of its loss, in units of reward."""
    lr_factor: float
    """Its learning rate over that of the policy."""
    detach: bool
    """Its gradient does not reach the policy."""
    warmup: int
    """In this many first steps it is trained alone."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The functions of an algorithm, with their options bound. B sequences, M tokens in a step, N in a micro-batch."""

    name: str
    kinds: frozenset[str]
    """Kinds of experiences to learn from: ``rollout``, ``demonstration``, ``preference``."""
    shape_rewards: Callable[[Floats, Ints], Floats]
    """(rewards [B], action-token counts [B]) → rewards [B]"""
    filters: tuple[Callable[[Sequences], Flags], ...]
    """Each returns which sequences stay in the loss, [B]."""
    token_filter: Callable[[StepTokens], Flags] | None
    """Returns which of the tokens of rollouts stay in the policy's loss, [M]; None: all."""
    advantages: Callable[..., Floats] | None
    """(rewards [B], groups [B]) → advantages [B], with :class:`rft.algorithms.inputs.RewardTerms` as third argument if
    :attr:`needs` says so; None if advantages are by token."""
    token_advantages: Callable[[Trajectories], Floats | AdvantageEstimate] | None
    """→ advantages [M]; None if advantages are by sample."""
    loss: Callable[[TokenBatch], TokenLoss]
    demonstration_loss: Callable[[TokenBatch], TokenLoss] | None
    """Loss of demonstrations; None if they have the same loss as all others."""
    demonstration_share: Callable[[int], float]
    """Step (from 1) → μ, the demonstrations' share of the loss."""
    token_weights: Callable[[Ints | Floats], Floats]
    """Action-token counts [B] → weight of each token of the sequence [B]"""
    rows_as_one: bool
    """A sample of several rows weighs as one of their mean length, else as one with all its tokens."""
    kl: Callable[[Tensor, Tensor], Tensor] | None
    """(logprobs [N], reference [N]) → estimates [N]; None without a KL term."""
    kl_coef: float
    kl_in_reward: bool
    kl_unbiased: bool
    """In the loss, the estimates are multiplied by the ratio of the policy to the sampler."""
    entropy_coef: float
    old_from_trainer: bool
    """Ratios are taken against the policy as the step began, else against the sampler."""
    correction: Callable[[Tensor], Tensor] | None
    """Log-ratios [N] → weights [N], see :mod:`rft.algorithms.corrections`; None without a correction."""
    correction_level: Level
    """What the log-ratio of ``correction`` is of."""
    rejection: Callable[[Tensor], Tensor] | None
    """Log-ratios [N] → weights [N] of 0 or 1; None without a rejection."""
    rejection_level: Level
    """What the log-ratio of ``rejection`` is of."""
    off_policy_mask: float | None
    """The threshold δ of :func:`rft.algorithms.corrections.off_policy_mask`; None without it."""
    needs: Needs
    """What loss and estimator need, taken together."""
    value_head: ValueHeadSettings | None
    teacher: str | None
    """The teacher's model folder; None without a teacher."""
    teacher_advantages: Callable[[Floats, Floats], Floats] | None
    """(logprobs [M], teacher's [M]) → [M], added to the advantages of rollouts' tokens ``teacher_coef`` times; None
    without a teacher's term there."""
    teacher_loss: Callable[[Tensor, Tensor], Tensor] | None
    """(logprobs [N], teacher's [N]) → estimates [N], added to the losses of rollouts' tokens ``teacher_coef`` times;
    None without a teacher's term there."""
    teacher_coef: float

    @property
    def treats_demonstrations(self) -> bool:
        """Return whether demonstrations are not treated as samples of the policy: ratios to their sampler, corrections
        and token filters leave them out."""
        return self.demonstration_loss is not None or self.needs.demonstrations

    @property
    def needs_reference(self) -> bool:
        """Return whether the reference's log-probabilities are compared with: by the loss or a KL term."""
        return self.kl is not None or self.needs.reference
