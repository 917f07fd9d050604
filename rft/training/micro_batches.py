"""Splits the sequences of a step into micro-batches for one forward pass each, padded or packed.

The result follows from the samples and their order alone, so a redone step is split the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from rft.algorithms.inputs import Flags
from rft.training.batch import MicroBatch, StepBatch


def make_micro_batches(
    batch: StepBatch, max_tokens: int, units: Sequence[Sequence[int]] | None = None, *, packed: bool = False
) -> list[MicroBatch]:
    """Make the micro-batches of a step, or of the sequences in ``units``; arguments as in :func:`split_by_tokens`."""
    make = _pack if packed else _pad
    return [make(batch, indices) for indices in micro_batch_indices(batch, max_tokens, units, packed=packed)]


def micro_batch_indices(
    batch: StepBatch, max_tokens: int, units: Sequence[Sequence[int]] | None = None, *, packed: bool = False
) -> list[list[int]]:
    """Return the indices of the sequences in each of :func:`make_micro_batches`."""
    return split_by_tokens(_input_lengths(batch), max_tokens, units, packed=packed)


def split_by_tokens(
    lengths: Sequence[int], max_tokens: int, units: Sequence[Sequence[int]] | None = None, *, packed: bool = False
) -> list[list[int]]:
    """Split the indices of ``lengths`` into micro-batches, short sequences first.

    A micro-batch has at most ``max_tokens`` tokens, padding included. A unit with more tokens is a micro-batch of its
    own.

    Args:
        units: indices that must stay together, such as the two of a preference. Indices in no unit are left out. None:
            each index is a unit.
        packed: there is no padding.
    """
    units = [[index] for index in range(len(lengths))] if units is None else units
    longest = [max(lengths[index] for index in unit) for unit in units]
    split: list[list[int]] = []
    tokens = 0
    for u in sorted(range(len(units)), key=lambda u: (longest[u], units[u][0])):
        unit = units[u]
        added = sum(lengths[index] for index in unit)
        size = tokens + added if packed else (len(split[-1]) + len(unit)) * longest[u] if split else 0
        if split and size <= max_tokens:
            split[-1] += unit
            tokens += added
        else:
            split.append(list(unit))
            tokens = added
    return split


def padding_ratio(batch: StepBatch, max_tokens: int, units: Sequence[Sequence[int]]) -> float:
    """Return the tokens of padded micro-batches of ``units`` over their tokens without padding: 1 or more."""
    lengths = _input_lengths(batch)
    split = split_by_tokens(lengths, max_tokens, units)
    padded = sum(len(indices) * max(lengths[i] for i in indices) for indices in split)
    return padded / max(sum(lengths[i] for indices in split for i in indices), 1)


def split_over_ranks(batch: StepBatch, units: Sequence[Sequence[int]], ranks: int) -> list[list[Sequence[int]]]:
    """Distribute ``units`` over ``ranks`` so that each rank has about as many tokens.

    The longest unit goes first, always to the rank with the fewest tokens so far.
    """
    lengths = _input_lengths(batch)
    sizes = [sum(lengths[i] for i in unit) for unit in units]
    split: list[list[Sequence[int]]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for u in sorted(range(len(units)), key=lambda u: (-sizes[u], units[u][0])):
        rank = tokens.index(min(tokens))
        split[rank].append(units[u])
        tokens[rank] += sizes[u]
    return split


def _input_lengths(batch: StepBatch) -> list[int]:
    return [len(payload.tokens) - 1 for payload in batch.payloads]


def _pack(batch: StepBatch, indices: list[int]) -> MicroBatch:
    payloads = [batch.payloads[index] for index in indices]
    lengths = np.array([len(payload.tokens) - 1 for payload in payloads])
    # Positions of the row's inputs among all tokens of the sequences, each of which has one token more than inputs.
    before = np.arange(lengths.sum()) + np.repeat(np.arange(len(payloads)), lengths)
    learned = np.concatenate([payload.action_mask for payload in payloads])[before + 1] != 0
    tokens = np.concatenate([payload.tokens for payload in payloads])
    after = before[learned] + 1
    counts = batch.counts[indices]
    columns = np.flatnonzero(learned)
    return MicroBatch(
        inputs=torch.from_numpy(tokens[before].astype(np.int64))[None],
        columns=torch.from_numpy(columns),
        logit_indices=torch.arange(len(columns)),
        targets=torch.from_numpy(tokens[after].astype(np.int64)),
        sampler_logprobs=torch.from_numpy(np.concatenate([payload.logprobs for payload in payloads])[after]),
        versions=torch.from_numpy(np.concatenate([payload.versions for payload in payloads])[after]),
        token_indices=torch.from_numpy(
            np.concatenate([np.arange(c) + s for c, s in zip(counts, batch.starts[indices], strict=True)])
        ),
        sequences=torch.from_numpy(np.repeat(np.arange(len(indices)), counts)),
        batch_indices=torch.from_numpy(np.array(indices, dtype=np.int64)),
        packed_lengths=tuple(lengths.tolist()),
    )


def _pad(batch: StepBatch, indices: list[int]) -> MicroBatch:
    payloads = [batch.payloads[index] for index in indices]
    lengths = np.array([len(payload.tokens) for payload in payloads])
    real = np.arange(lengths.max()) < lengths[:, None]
    tokens = _rows(real, [payload.tokens for payload in payloads], np.int64)
    actions = _rows(real, [payload.action_mask for payload in payloads], np.bool_)
    logprobs = _rows(real, [payload.logprobs for payload in payloads], np.float32)
    versions = _rows(real, [payload.versions for payload in payloads], np.int32)
    rows, before = np.nonzero(actions[:, 1:])
    columns, column_indices = np.unique(before, return_inverse=True)
    counts = batch.counts[indices]
    # The tokens of a row have consecutive indices from its sequence's start on.
    shift = batch.starts[indices] - (np.cumsum(counts) - counts)
    return MicroBatch(
        inputs=torch.from_numpy(np.ascontiguousarray(tokens[:, :-1])),
        columns=torch.from_numpy(columns),
        logit_indices=torch.from_numpy(rows * len(columns) + column_indices),
        targets=torch.from_numpy(tokens[rows, before + 1]),
        sampler_logprobs=torch.from_numpy(logprobs[rows, before + 1]),
        versions=torch.from_numpy(versions[rows, before + 1]),
        token_indices=torch.from_numpy(np.arange(len(rows)) + shift[rows]),
        sequences=torch.from_numpy(rows),
        batch_indices=torch.from_numpy(np.array(indices, dtype=np.int64)),
    )


def _rows(real: Flags, parts: Sequence[npt.NDArray[np.generic]], dtype: type) -> npt.NDArray[np.generic]:
    """Write each part from the left into its row of an array of zeros [S, L]; ``real`` [S, L] marks the elements."""
    whole: npt.NDArray[np.generic] = np.zeros(real.shape, dtype=dtype)
    whole[real] = np.concatenate(parts)
    return whole
