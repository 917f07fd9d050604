"""Samples become micro-batches, padded or packed: sorted by length, cut by tokens, ready for one forward pass each.

Everything here derives from the samples and their order alone, so a step done again is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rft.training.sample import Payload, Sample

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class StepBatch:
    """The B sequences of one gradient step, of 2 tokens or more, and what is known of each.

    The tokens to learn from, M in all, are numbered through: those of the first sequence from left to right, then those
    of the second, and so on. :attr:`MicroBatch.tokens` refers to these numbers.
    """

    payloads: Sequence[Payload]
    rewards: Floats
    """[B]"""
    groups: Ints
    """[B]: index of the group, 0 … G-1."""
    kinds: tuple[str, ...]
    """[B]: ``rollout``, ``demonstration`` or ``preference``."""
    temperatures: Floats
    """[B], of the sampler; 0 is greedy."""
    top_ps: Floats
    """[B], of the sampler."""
    truncated: Flags
    """[B]: cut at the token limit."""

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> StepBatch:
        """``samples`` whose payloads are there."""
        index: dict[str, int] = {}
        payloads = [sample.payload for sample in samples if sample.payload is not None]
        if len(payloads) != len(samples):
            raise RuntimeError("a sample's arrays were not fetched before its step")
        return cls(
            payloads=payloads,
            rewards=np.array([sample.reward for sample in samples], dtype=np.float64),
            groups=np.array([index.setdefault(s.group_id, len(index)) for s in samples], dtype=np.int64),
            kinds=tuple(sample.kind for sample in samples),
            temperatures=np.array([sample.temperature for sample in samples], dtype=np.float64),
            top_ps=np.array([sample.top_p for sample in samples], dtype=np.float64),
            truncated=np.array([sample.truncated for sample in samples], dtype=np.bool_),
        )

    def __len__(self) -> int:
        """B"""
        return len(self.payloads)

    @cached_property
    def counts(self) -> Ints:
        """int64 [B]: tokens to learn from in each sequence."""
        return np.array([int(np.count_nonzero(payload.action_mask[1:])) for payload in self.payloads], dtype=np.int64)

    @cached_property
    def starts(self) -> Ints:
        """int64 [B]: number of each sequence's first token to learn from."""
        return np.cumsum(self.counts) - self.counts


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """S whole sequences of a step, with N tokens to learn from: right-padded to L inputs each, or packed into one row.

    Causal attention never looks right, so right padding needs no attention mask. A packed row does need to tell its
    sequences apart (:mod:`rft.training.packing`).
    """

    inputs: Tensor
    """int64 [S, L], 0 where padded, or packed [1, L]: all but each sequence's last token."""
    columns: Tensor
    """int64 [C]: columns of ``inputs`` that predict a token to learn from, in any row; ascending."""
    picks: Tensor
    """int64 [N]: where the N predictions stand in logits [S, C, V] flattened to [S · C, V]; packed, 0 … N-1."""
    targets: Tensor
    """int64 [N]: the tokens that the policy wrote."""
    behaviour: Tensor
    """float32 [N]: the sampler's log-probabilities."""
    versions: Tensor
    """int32 [N]: weight version that wrote the token."""
    tokens: Tensor
    """int64 [N]: the token's number in its step, see :class:`StepBatch`."""
    sequences: Tensor
    """int64 [N]: which of the micro-batch's sequences the token belongs to, 0 … S-1; ascending."""
    members: Tensor
    """int64 [S]: which of the step's sequences each is, 0 … B-1."""
    packed: tuple[int, ...] | None = None
    """Lengths of the S sequences of a packed row; None when each has a row of its own."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device."""
        tensors = {name: getattr(self, name).to(device, non_blocking=True) for name in self.__slots__[:-1]}
        return replace(self, **tensors)


def cut(
    lengths: Sequence[int], max_tokens: int, units: Sequence[Sequence[int]] | None = None, *, packed: bool = False
) -> list[list[int]]:
    """Indices of ``lengths`` grouped into micro-batches, shortest first.

    Each holds at most ``max_tokens`` tokens, padding included, but at least one unit.

    Args:
        units: indices that must stay together, such as the two of a preference; by default each is alone. What is in
            none of them is left out.
        packed: there is no padding.
    """
    units = [[index] for index in range(len(lengths))] if units is None else units
    longest = [max(lengths[index] for index in unit) for unit in units]
    pieces: list[list[int]] = []
    held = 0
    for place in sorted(range(len(units)), key=lambda place: (longest[place], units[place][0])):
        unit = units[place]
        added = sum(lengths[index] for index in unit)
        size = held + added if packed else (len(pieces[-1]) + len(unit)) * longest[place] if pieces else 0
        if pieces and size <= max_tokens:
            pieces[-1] += unit
            held += added
        else:
            pieces.append(list(unit))
            held = added
    return pieces


def waste(batch: StepBatch, max_tokens: int, units: Sequence[Sequence[int]]) -> float:
    """Tokens of ``units`` cut into padded micro-batches, over their tokens without padding; 1 or more."""
    inputs = _inputs(batch)
    cuts = cut(inputs, max_tokens, units)
    padded = sum(len(piece) * max(inputs[i] for i in piece) for piece in cuts)
    return padded / max(sum(inputs[i] for piece in cuts for i in piece), 1)


def shares(batch: StepBatch, units: Sequence[Sequence[int]], ranks: int) -> list[list[Sequence[int]]]:
    """``units`` dealt to so many ranks, so that each has about as many tokens: the longest first, to whom has least."""
    inputs = _inputs(batch)
    sizes = [sum(inputs[i] for i in unit) for unit in units]
    dealt: list[list[Sequence[int]]] = [[] for _ in range(ranks)]
    held = [0] * ranks
    for place in sorted(range(len(units)), key=lambda place: (-sizes[place], units[place][0])):
        rank = held.index(min(held))
        dealt[rank].append(units[place])
        held[rank] += sizes[place]
    return dealt


def micro_batches(
    batch: StepBatch, max_tokens: int, units: Sequence[Sequence[int]] | None = None, *, packed: bool = False
) -> list[MicroBatch]:
    """The micro-batches of a step, or of the part of it that ``units`` name (see :func:`cut`).

    ``max_tokens`` is the most tokens of one forward pass, padding included.
    """
    make = _pack if packed else _pad
    return [make(batch, piece) for piece in pieces(batch, max_tokens, units, packed=packed)]


def pieces(
    batch: StepBatch, max_tokens: int, units: Sequence[Sequence[int]] | None = None, *, packed: bool = False
) -> list[list[int]]:
    """Which sequences each of :func:`micro_batches` holds."""
    return cut(_inputs(batch), max_tokens, units, packed=packed)


def _inputs(batch: StepBatch) -> list[int]:
    return [len(payload.tokens) - 1 for payload in batch.payloads]


def _pack(batch: StepBatch, members: list[int]) -> MicroBatch:
    payloads = [batch.payloads[member] for member in members]
    lengths = np.array([len(payload.tokens) - 1 for payload in payloads])
    # Where the row's tokens and the ones that follow them stand among all tokens.
    before = np.arange(lengths.sum()) + np.repeat(np.arange(len(payloads)), lengths)
    learned = np.concatenate([payload.action_mask for payload in payloads])[before + 1] != 0
    tokens = np.concatenate([payload.tokens for payload in payloads])
    after = before[learned] + 1
    counts = batch.counts[members]
    columns = np.flatnonzero(learned)
    return MicroBatch(
        inputs=torch.from_numpy(tokens[before].astype(np.int64))[None],
        columns=torch.from_numpy(columns),
        picks=torch.arange(len(columns)),
        targets=torch.from_numpy(tokens[after].astype(np.int64)),
        behaviour=torch.from_numpy(np.concatenate([payload.logprobs for payload in payloads])[after]),
        versions=torch.from_numpy(np.concatenate([payload.versions for payload in payloads])[after]),
        tokens=torch.from_numpy(
            np.concatenate([np.arange(c) + s for c, s in zip(counts, batch.starts[members], strict=True)])
        ),
        sequences=torch.from_numpy(np.repeat(np.arange(len(members)), counts)),
        members=torch.from_numpy(np.array(members, dtype=np.int64)),
        packed=tuple(lengths.tolist()),
    )


def _pad(batch: StepBatch, members: list[int]) -> MicroBatch:
    payloads = [batch.payloads[member] for member in members]
    lengths = np.array([len(payload.tokens) for payload in payloads])
    real = np.arange(lengths.max()) < lengths[:, None]
    tokens = _spread(real, [payload.tokens for payload in payloads], np.int64)
    actions = _spread(real, [payload.action_mask for payload in payloads], np.bool_)
    behaviour = _spread(real, [payload.logprobs for payload in payloads], np.float32)
    versions = _spread(real, [payload.versions for payload in payloads], np.int32)
    rows, before = np.nonzero(actions[:, 1:])
    columns, place = np.unique(before, return_inverse=True)
    counts = batch.counts[members]
    # The tokens of a row are numbered from its sequence's start on.
    shift = batch.starts[members] - (np.cumsum(counts) - counts)
    return MicroBatch(
        inputs=torch.from_numpy(np.ascontiguousarray(tokens[:, :-1])),
        columns=torch.from_numpy(columns),
        picks=torch.from_numpy(rows * len(columns) + place),
        targets=torch.from_numpy(tokens[rows, before + 1]),
        behaviour=torch.from_numpy(behaviour[rows, before + 1]),
        versions=torch.from_numpy(versions[rows, before + 1]),
        tokens=torch.from_numpy(np.arange(len(rows)) + shift[rows]),
        sequences=torch.from_numpy(rows),
        members=torch.from_numpy(np.array(members, dtype=np.int64)),
    )


def _spread(real: npt.NDArray[np.bool_], parts: list[npt.NDArray[np.generic]], dtype: type) -> npt.NDArray[np.generic]:
    """[S, L] of zeros with each part written from the left of its row."""
    whole: npt.NDArray[np.generic] = np.zeros(real.shape, dtype=dtype)
    whole[real] = np.concatenate(parts)
    return whole
