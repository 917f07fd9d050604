"""Samples become padded micro-batches: sorted by length, cut by tokens, ready for one forward pass each.

Everything here derives from the samples and their order alone, so a step done again is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rft.training.sample import Payload

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """B sequences right-padded to L inputs, with N tokens to learn from.

    Causal attention never looks right, so right padding needs no attention mask.
    """

    inputs: Tensor
    """int64 [B, L]: all but each sequence's last token; 0 where padded."""
    columns: Tensor
    """int64 [C]: columns of ``inputs`` that predict a token to learn from, in any sequence; ascending."""
    picks: Tensor
    """int64 [N]: where the N predictions stand in logits [B, C, V] flattened to [B · C, V]."""
    targets: Tensor
    """int64 [N]: the tokens that the policy wrote."""
    behaviour: Tensor
    """float32 [N]: the sampler's log-probabilities."""
    advantages: Tensor
    """float32 [N]"""
    weights: Tensor
    """float32 [N]: share of each token in the step's loss."""
    temperatures: Tensor
    """float32 [N]: the logits' divisor; 1 for greedy samples."""
    versions: Tensor
    """int32 [N]: weight version that wrote the token."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device."""
        return MicroBatch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__slots__))


def action_counts(payloads: Sequence[Payload]) -> Ints:
    """int64 [B]: tokens to learn from in each sequence."""
    return np.array([int(np.count_nonzero(payload.action_mask[1:])) for payload in payloads], dtype=np.int64)


def cut(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of ``lengths`` grouped into micro-batches, shortest first.

    Each holds at most ``max_tokens`` tokens, padding included, but at least one sequence.
    """
    pieces: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if pieces and (len(pieces[-1]) + 1) * lengths[index] <= max_tokens:
            pieces[-1].append(index)
        else:
            pieces.append([index])
    return pieces


def micro_batches(
    payloads: Sequence[Payload],
    *,
    advantages: Floats,
    weights: Floats,
    temperatures: Sequence[float],
    max_tokens: int,
) -> list[MicroBatch]:
    """All of a step's micro-batches.

    Args:
        payloads: B sequences of 2 tokens or more.
        advantages: [B].
        weights: [B], of each token of that sequence.
        temperatures: [B], of the sampler.
        max_tokens: most tokens of one forward pass, padding included.
    """
    inputs = [len(payload.tokens) - 1 for payload in payloads]
    divisors = np.array([temperature or 1.0 for temperature in temperatures])
    return [
        _pad([payloads[i] for i in piece], advantages[piece], weights[piece], divisors[piece])
        for piece in cut(inputs, max_tokens)
    ]


def _pad(payloads: list[Payload], advantages: Floats, weights: Floats, divisors: Floats) -> MicroBatch:
    lengths = np.array([len(payload.tokens) for payload in payloads])
    real = np.arange(lengths.max()) < lengths[:, None]
    tokens = _spread(real, [payload.tokens for payload in payloads], np.int64)
    actions = _spread(real, [payload.action_mask for payload in payloads], np.bool_)
    behaviour = _spread(real, [payload.logprobs for payload in payloads], np.float32)
    versions = _spread(real, [payload.versions for payload in payloads], np.int32)
    rows, before = np.nonzero(actions[:, 1:])
    columns, place = np.unique(before, return_inverse=True)
    return MicroBatch(
        inputs=torch.from_numpy(np.ascontiguousarray(tokens[:, :-1])),
        columns=torch.from_numpy(columns),
        picks=torch.from_numpy(rows * len(columns) + place),
        targets=torch.from_numpy(tokens[rows, before + 1]),
        behaviour=torch.from_numpy(behaviour[rows, before + 1]),
        advantages=torch.from_numpy(advantages[rows].astype(np.float32)),
        weights=torch.from_numpy(weights[rows].astype(np.float32)),
        temperatures=torch.from_numpy(divisors[rows].astype(np.float32)),
        versions=torch.from_numpy(versions[rows, before + 1]),
    )


def _spread(real: npt.NDArray[np.bool_], parts: list[npt.NDArray[np.generic]], dtype: type) -> npt.NDArray[np.generic]:
    """[B, L] of zeros with each part written from the left of its row."""
    whole: npt.NDArray[np.generic] = np.zeros(real.shape, dtype=dtype)
    whole[real] = np.concatenate(parts)
    return whole
