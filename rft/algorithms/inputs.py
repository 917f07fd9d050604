"""Defines what the functions of an algorithm receive and what a loss returns.

"Tokens" are action tokens only: those that the policy, or an expert, wrote. Prompts and padding are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MAX_LOG_RATIO = 20.0
"""Bound of log-ratios before exp. exp(20) is beyond any clip range, yet far from overflow in float32."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Sequences:
    """The B samples of a step, as filters receive them. Several rows of a sample are one sequence here."""

    rewards: Floats
    """[B]"""
    groups: Ints
    """[B]: index of the group, 0 … G-1."""
    counts: Ints
    """[B]: number of action tokens."""
    truncated: Flags
    """[B]: the sequence was cut at the token limit."""


@dataclass(frozen=True, slots=True)
class RewardTerms:
    """The K named rewards of a step's B samples, for estimators that compare each reward by itself."""

    names: tuple[str, ...]
    """[K]"""
    values: Floats
    """[B, K]: the rewards as they were given, before weighting; NaN where a sample has none of that name."""
    weights: Floats
    """[K]: weight of each in the reward of a sample."""


@dataclass(frozen=True, slots=True)
class Turns:
    """The K turns of all trajectories, in order, as estimators of advantages by token receive them.

    A turn is a contiguous run of tokens that the policy wrote. Turn k has the tokens ``starts[k] … starts[k] +
    counts[k] - 1``.
    """

    owners: Ints
    """[K]: index of the trajectory, ascending."""
    starts: Ints
    """[K]: index of the turn's first token."""
    counts: Ints
    """[K]: number of tokens, at least 1."""
    rewards: Floats
    """[K]: reward of the turn, NaN where none is known."""
    states: Ints
    """[K]: what the policy saw since its last turn; turns with the same number read the same tokens there."""


@dataclass(frozen=True, slots=True)
class Trajectories:
    """The M tokens of a step's B samples in one row, as estimators of advantages by token receive them.

    A trajectory is one sample. If it has several rows, their tokens follow one another. Trajectory i has the tokens
    ``starts[i] … starts[i] + counts[i] - 1``.
    """

    rewards: Floats
    """[B]: reward of the whole sample."""
    groups: Ints
    """[B]: index of the group, 0 … G-1."""
    starts: Ints
    """[B]: index of the sample's first token."""
    counts: Ints
    """[B]: number of tokens."""
    penalties: Floats
    """[M]: subtracted from the reward at each token. ``kl_coef`` times the KL estimate if ``kl_in = "reward"``, else
    0."""
    policy: Floats
    """[M]: log-probabilities of the policy as the step began, or the sampler's if the trainer did not recompute them.
    """
    values: Floats | None
    """[M]: the value head's estimate for the state before the token; None without a value head."""
    teacher: Floats | None
    """[M]: the teacher's log-probabilities; None without a teacher."""
    turns: Turns | None = None
    """Turns with their rewards; None: no turn has a reward of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """The N tokens of S whole sequences in one micro-batch, as losses receive them."""

    logprobs: Tensor
    """float [N]: log-probabilities of the policy as it is now. Carries the gradient."""
    old: Tensor
    """float [N]: log-probabilities that ratios are taken against: the sampler's, or the policy's as the step began."""
    advantages: Tensor
    """float [N]"""
    sequences: Tensor
    """int64 [N]: index of the token's sequence, 0 … S-1, ascending."""
    rewards: Tensor
    """float [S]"""
    groups: Tensor
    """int64 [S]: index of the group in the step."""
    reference: Tensor | None = None
    """float [N]: log-probabilities under the initial weights; only for losses that ask for them with :func:`needs`."""
    entropy: Tensor | None = None
    """float [N]: entropy of the policy at the token, in nats; only for losses that ask for it. Carries a gradient."""
    covariance_rank: Tensor | None = None
    """float [N]: share of the step's tokens whose covariance between advantage and log-probability is higher than that
    of the token (:func:`rft.algorithms.token_filters.covariances`); only for losses that ask for it."""
    demonstrated: Tensor | None = None
    """bool [S]: an expert wrote the sequence; None: none of the micro-batch."""
    baseline: float = 0.0
    """KTO's reference point, see :func:`rft.algorithms.losses.preference.kto`."""

    def sums(self, values: Tensor) -> Tensor:
        """Sum ``values`` [N] over the tokens of each sequence; returns [S]."""
        return torch.zeros_like(self.rewards, dtype=values.dtype).index_add(0, self.sequences, values)

    def means(self, values: Tensor) -> Tensor:
        """Average ``values`` [N] over the tokens of each sequence; returns [S]."""
        return self.sums(values) / self.sums(torch.ones_like(values)).clamp(min=1)

    def spread(self, values: Tensor) -> Tensor:
        """Repeat each sequence's value in ``values`` [S] at its tokens; returns [N]."""
        return values[self.sequences]


class TokenLoss(NamedTuple):
    """The result of a loss, each field [N].

    A loss of whole sequences repeats the sequence's loss at each of its tokens. The aggregation ``sequence_mean`` then
    averages over sequences.
    """

    loss: Tensor
    """Is weighted, summed and minimized."""
    ratio: Tensor
    """Probability now over that of the old policy; without gradient."""
    clipped: Tensor
    """bool: the clip removed this token's gradient."""


def importance_ratio(logprobs: Tensor, old: Tensor) -> Tensor:
    """Return ``exp(logprobs - old)`` for log-probabilities of the same tokens.

    The difference is bounded to ±:data:`MAX_LOG_RATIO`, so that the ratio stays finite.
    """
    return torch.exp(torch.clamp(logprobs - old, -MAX_LOG_RATIO, MAX_LOG_RATIO))


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be computed for a loss or an estimator. The default is safe for any loss over tokens."""

    reference: bool = False
    """A loss reads :attr:`TokenBatch.reference`."""
    pairs: bool = False
    """A loss compares the best and the worst sample of a group. It receives only these two, in one micro-batch."""
    baseline: bool = False
    """A loss reads :attr:`TokenBatch.baseline`."""
    entropy: bool = False
    """A loss reads :attr:`TokenBatch.entropy`."""
    demonstrations: bool = False
    """A loss tells demonstrations from rollouts by :attr:`TokenBatch.demonstrated`."""
    covariance: bool = False
    """A loss reads :attr:`TokenBatch.covariance_rank`."""
    values: bool = False
    """An estimator reads :attr:`Trajectories.values`, so a value head is trained."""
    teacher: bool = False
    """An estimator reads :attr:`Trajectories.teacher`."""
    reward_terms: bool = False
    """An estimator by sample has a third parameter, :class:`RewardTerms`."""
    policy: bool = False
    """An estimator reads :attr:`Trajectories.policy` and must find the trainer's own log-probabilities there."""
    vanishes: bool = False
    """The gradient of a loss is 0 where the advantage is 0, so sequences without any advantage are not computed."""


def needs(**wants: bool) -> Callable[[F], F]:
    """Declare what a loss or an estimator needs (a decorator); names are the fields of :class:`Needs`."""

    def mark(function: F) -> F:
        function.needs = Needs(**wants)  # type: ignore[attr-defined]  # functions take any attribute
        return function

    return mark


def needs_of(function: Callable[..., Any]) -> Needs:
    """Return what :func:`needs` declared for ``function``; the default if it declared nothing."""
    found: Needs = getattr(function, "needs", Needs())
    return found
