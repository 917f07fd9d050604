"""Shapes rewards, selects samples and schedules demonstrations before the loss. All functions are pure, on numpy."""

from __future__ import annotations

import math

import numpy as np

from rft.algorithms.inputs import Flags, Floats, Ints, Sequences


def overlong_penalty(counts: Ints, *, limit: int, buffer: int) -> Floats:
    """Return a penalty [B] from 0 to -1 to add to rewards: DAPO's soft overlong punishment
    (https://arxiv.org/abs/2503.14476, equation 13).

    The penalty is 0 up to ``limit - buffer`` tokens, falls linearly to -1 at ``limit``, and is -1 beyond.
    """
    penalty: Floats = np.clip((limit - buffer - counts) / max(buffer, 1), -1.0, 0.0)
    return penalty


def not_uniform(sequences: Sequences) -> Flags:
    """Select the sequences [B] whose group has differing rewards: DAPO's dynamic sampling (equation 11), applied to
    what was already sampled.

    ``processor.drop_uniform_groups`` does the same before the trainer counts groups, so that steps stay full.
    """
    size = int(sequences.groups.max()) + 1
    highest, lowest = np.full(size, -np.inf), np.full(size, np.inf)
    np.maximum.at(highest, sequences.groups, sequences.rewards)
    np.minimum.at(lowest, sequences.groups, sequences.rewards)
    kept: Flags = (highest > lowest)[sequences.groups]
    return kept


def not_truncated(sequences: Sequences) -> Flags:
    """Select the sequences [B] that were not cut at the token limit: DAPO's overlong filtering (section 3.4).

    The rewards of the others still count in their group's mean.
    """
    return ~sequences.truncated


def best(sequences: Sequences, *, share: float = 0.5) -> Flags:
    """Select the sequences [B] with the highest rewards in their group, ``share`` of it: rejection sampling within a
    step.

    The number is rounded up, is at least 1, and grows by ties with the lowest selected reward.
    """
    kept = np.zeros(len(sequences.rewards), dtype=np.bool_)
    for group in np.unique(sequences.groups):
        samples = np.flatnonzero(sequences.groups == group)
        rewards = np.sort(sequences.rewards[samples])[::-1]
        least = rewards[max(math.ceil(share * len(rewards)), 1) - 1]
        kept[samples] = sequences.rewards[samples] >= least
    return kept


def share_of_demonstrations(step: int, *, peak: float, valley: float, warmup: int, decay: int) -> float:
    """Return μ of step ``step`` (from 1): the demonstrations' share of the loss.

    μ rises linearly to ``peak`` over ``warmup`` steps, then falls to ``valley`` along a cosine over ``decay`` steps
    (CHORD-μ, https://arxiv.org/abs/2508.11408). Without warm-up and decay it is ``valley``.
    """
    if step <= warmup:
        return peak * step / warmup
    if step >= warmup + decay:
        return valley
    return valley + (peak - valley) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / decay))
