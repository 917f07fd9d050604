"""What the functions of an algorithm are given, and what a loss returns.

Tokens are those to learn from (that the policy, or an expert, wrote); prompts and padding never show.
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
"""exp(20) is beyond any clip range, yet far from overflow in float32."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Sequences:
    """The B sequences of a step, as filters see them; numpy arrays [B]."""

    rewards: Floats
    groups: Ints
    """Index of the group, 0 … G-1."""
    counts: Ints
    """Tokens to learn from."""
    truncated: Flags
    """Cut at the token limit."""


@dataclass(frozen=True, slots=True)
class Trajectories:
    """All tokens of a step in one row, as estimators of advantages by token see them.

    M tokens of B sequences; sequence i has the tokens ``starts[i] … starts[i] + counts[i] - 1``.
    """

    rewards: Floats
    """[B]: of the whole sequence."""
    groups: Ints
    """[B]"""
    starts: Ints
    """[B]"""
    counts: Ints
    """[B]"""
    penalties: Floats
    """[M]: subtracted from the reward at each token: ``kl_coef`` times the KL estimate when that is in the reward."""
    policy: Floats
    """[M]: log-probabilities of the policy as the step began; the sampler's where nothing had them recomputed."""
    values: Floats | None
    """[M]: of the value head, for the state before the token; None without one."""
    teacher: Floats | None
    """[M]: log-probabilities of the teacher; None without one."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """N tokens of S whole sequences in one micro-batch, as losses see them."""

    logprobs: Tensor
    """float [N]: of the policy now; carries the gradient."""
    old: Tensor
    """float [N]: of the policy that ratios are taken against: the sampler's, or those as the step began."""
    advantages: Tensor
    """float [N]"""
    sequences: Tensor
    """int64 [N]: which sequence a token belongs to, 0 … S-1; ascending."""
    rewards: Tensor
    """float [S]"""
    groups: Tensor
    """int64 [S]: index of the group in the step."""
    reference: Tensor | None = None
    """float [N]: of the initial weights; only for losses that say so by :func:`needs`."""
    baseline: float = 0.0
    """KTO's reference point, see :func:`rft.algorithms.losses.preference.kto`."""

    def sums(self, values: Tensor) -> Tensor:
        """[N] → [S]: sum over the tokens of each sequence."""
        return torch.zeros_like(self.rewards, dtype=values.dtype).index_add(0, self.sequences, values)

    def means(self, values: Tensor) -> Tensor:
        """[N] → [S]: mean over the tokens of each sequence."""
        return self.sums(values) / self.sums(torch.ones_like(values)).clamp(min=1)

    def spread(self, values: Tensor) -> Tensor:
        """[S] → [N]: to each token its sequence's value."""
        return values[self.sequences]


class TokenLoss(NamedTuple):
    """What a loss says about each token; all [N].

    The loss of a whole sequence stands at each of its tokens: ``sequence_mean`` then makes the mean over sequences.
    """

    loss: Tensor
    """To be weighted, summed and minimised."""
    ratio: Tensor
    """Probability now over that of the old policy; without gradient."""
    clipped: Tensor
    """bool: the clip took this token's gradient away."""


def importance_ratio(logprobs: Tensor, old: Tensor) -> Tensor:
    """``exp(logprobs - old)`` for log-probabilities of the same tokens, bounded to stay finite."""
    return torch.exp(torch.clamp(logprobs - old, -MAX_LOG_RATIO, MAX_LOG_RATIO))


@dataclass(frozen=True, slots=True)
class Needs:
    """What a function wants computed for it. The default is safe for any loss over tokens."""

    reference: bool = False
    """A loss reads ``Tokens.reference``."""
    pairs: bool = False
    """A loss compares the best with the worst of a group: only these two are given, in one micro-batch."""
    baseline: bool = False
    """A loss reads ``Tokens.baseline``."""
    values: bool = False
    """An estimator reads ``Trajectories.values``: there is a value head, and it is trained."""
    teacher: bool = False
    """An estimator reads ``Trajectories.teacher``."""
    policy: bool = False
    """An estimator reads ``Trajectories.policy`` and must have the trainer's own numbers there."""
    vanishes: bool = False
    """A loss has no gradient where the advantage is 0, so such sequences need not be computed."""


def needs(**wants: bool) -> Callable[[F], F]:
    """Decorator that says what a loss or an estimator needs, see :class:`Needs`."""

    def mark(function: F) -> F:
        function.needs = Needs(**wants)  # type: ignore[attr-defined]
        return function

    return mark


def needs_of(function: Callable[..., Any]) -> Needs:
    """What :func:`needs` said of ``function``."""
    found: Needs = getattr(function, "needs", Needs())
    return found
