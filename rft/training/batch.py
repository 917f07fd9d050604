"""Defines the sequences of one gradient step, and of one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rft.algorithms.inputs import Flags, Floats, Ints
from rft.training.sample import Payload, Sample


@dataclass(frozen=True, eq=False)
class StepBatch:
    """The B sequences of one gradient step, each of 2 tokens or more, from S samples.

    A sequence is one row of a sample; most samples have one. The rows of a sample stand together and in order.

    The M action tokens of a step have indices: 0, 1, … from left to right through the first sequence, then through the
    second, and so on. :attr:`MicroBatch.token_indices` refers to them.
    """

    payloads: Sequence[Payload]
    rewards: Floats
    """[B]"""
    groups: Ints
    """[B]: index of the group, 0 … G-1."""
    kinds: tuple[str, ...]
    """[B]: ``rollout``, ``demonstration`` or ``preference``."""
    temperatures: Floats
    """[B]: temperature of the sampler; 0 is greedy."""
    top_ps: Floats
    """[B]: top-p of the sampler."""
    truncated: Flags
    """[B]: the sequence was cut at the token limit."""
    samples: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """[B]: index of the sample, 0 … S-1, ascending. By default each sequence is a sample."""

    reward_names: tuple[str, ...] = ()
    """[K]: names of rewards that any sample has, sorted."""
    reward_values: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """[B, K]: rewards by name before weighting; NaN where a sample has none of that name."""
    reward_weights: Floats = field(default_factory=lambda: np.zeros(0))
    """[K]: weight of each in the reward of a sample."""

    def __post_init__(self) -> None:
        """Number the samples. Raises RuntimeError if the rows of a sample do not stand together."""
        if not self.samples.size:
            object.__setattr__(self, "samples", np.arange(len(self.payloads), dtype=np.int64))
        if not self.reward_names:
            object.__setattr__(self, "reward_values", np.zeros((len(self.payloads), 0)))
        if self.samples.size and (self.samples[0] != 0 or not np.isin(np.diff(self.samples), (0, 1)).all()):
            raise RuntimeError("the rows of a sample do not stand together in the step's batch")

    @classmethod
    def from_samples(cls, samples: Sequence[Sample], weight_of: Callable[[str], float] = lambda name: 1.0) -> StepBatch:
        """Make the batch of ``samples``, in their order. Raises RuntimeError if a sample has no payload.

        ``weight_of`` returns the weight of a named reward in the reward of a sample.
        """
        index: dict[str, int] = {}
        numbers: dict[str, int] = {}
        payloads = [sample.payload for sample in samples if sample.payload is not None]
        if len(payloads) != len(samples):
            raise RuntimeError("a sample's arrays were not fetched before its step")
        names = tuple(sorted({name for sample in samples for name in sample.rewards}))
        return cls(
            payloads=payloads,
            rewards=np.array([sample.reward for sample in samples], dtype=np.float64),
            groups=np.array([index.setdefault(s.group_id, len(index)) for s in samples], dtype=np.int64),
            kinds=tuple(sample.kind for sample in samples),
            temperatures=np.array([sample.temperature for sample in samples], dtype=np.float64),
            top_ps=np.array([sample.top_p for sample in samples], dtype=np.float64),
            truncated=np.array([sample.truncated for sample in samples], dtype=np.bool_),
            samples=np.array(
                [numbers.setdefault(sample.sample_id, len(numbers)) for sample in samples], dtype=np.int64
            ),
            reward_names=names,
            reward_values=np.array(
                [[sample.rewards.get(name, np.nan) for name in names] for sample in samples], dtype=np.float64
            ),
            reward_weights=np.array([weight_of(name) for name in names], dtype=np.float64),
        )

    def of_sequences(self, indices: Ints) -> StepBatch:
        """Return the batch of some of the sequences, each as a sample of its own."""
        return StepBatch(
            payloads=[self.payloads[index] for index in indices],
            rewards=self.rewards[indices],
            groups=np.unique(self.groups[indices], return_inverse=True)[1].astype(np.int64),
            kinds=tuple(self.kinds[index] for index in indices),
            temperatures=self.temperatures[indices],
            top_ps=self.top_ps[indices],
            truncated=self.truncated[indices],
        )

    @cached_property
    def newest_version(self) -> int:
        """The newest weight version that wrote a token; -1 if the policy wrote none."""
        return max(int(payload.versions[payload.action_mask != 0].max(initial=-1)) for payload in self.payloads)

    def __len__(self) -> int:
        """Return B."""
        return len(self.payloads)

    @cached_property
    def counts(self) -> Ints:
        """Number of action tokens of each sequence, int64 [B]. The first token of a sequence never counts."""
        return np.array([int(np.count_nonzero(payload.action_mask[1:])) for payload in self.payloads], dtype=np.int64)

    @cached_property
    def first_rows(self) -> Ints:
        """Index of each sample's first sequence, int64 [S]."""
        return np.flatnonzero(np.diff(self.samples, prepend=-1)).astype(np.int64)

    @cached_property
    def row_counts(self) -> Ints:
        """Number of sequences of each sample, int64 [S]."""
        return np.bincount(self.samples).astype(np.int64)

    @cached_property
    def starts(self) -> Ints:
        """Index of each sequence's first action token, int64 [B]."""
        return np.cumsum(self.counts) - self.counts


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """S whole sequences of a step with N action tokens, for one forward pass.

    Each sequence has a row of its own, padded on the right to L inputs, or all are packed into one row. Causal
    attention never looks to the right, so right padding needs no attention mask. A packed row needs the bounds of its
    sequences (:mod:`rft.training.packing`).
    """

    inputs: Tensor
    """int64 [S, L], 0 where padded, or packed [1, L]: all but the last token of each sequence."""
    columns: Tensor
    """int64 [C]: columns of ``inputs`` that predict an action token in any row, ascending."""
    logit_indices: Tensor
    """int64 [N]: rows of the N predictions in logits [S, C, V] flattened to [S · C, V]; packed, 0 … N-1."""
    targets: Tensor
    """int64 [N]: the action tokens."""
    sampler_logprobs: Tensor
    """float32 [N]: the sampler's log-probabilities."""
    versions: Tensor
    """int32 [N]: weight version that wrote the token."""
    token_indices: Tensor
    """int64 [N]: index of the token in its step, see :class:`StepBatch`."""
    sequences: Tensor
    """int64 [N]: index of the token's sequence within the micro-batch, 0 … S-1, ascending."""
    batch_indices: Tensor
    """int64 [S]: index of each sequence within the step, 0 … B-1."""
    packed_lengths: tuple[int, ...] | None = None
    """Inputs of each of the S sequences in a packed row; None if each sequence has a row of its own."""

    def to(self, device: torch.device) -> MicroBatch:
        """Return a copy on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in ((one.name, getattr(self, one.name)) for one in fields(self))
        }
        return MicroBatch(**moved)
