"""What is done with samples before they are compared: rewards shaped, samples left out. Pure numpy functions."""

from __future__ import annotations

import math

import numpy as np

from rft.algorithms.inputs import Flags, Floats, Ints, Sequences


def overlong_penalty(counts: Ints, *, limit: int, buffer: int) -> Floats:
    """0 to -1 [B], added to rewards: DAPO's soft overlong punishment (https://arxiv.org/abs/2503.14476, equation 13).

    0 up to ``limit - buffer`` tokens, falling linearly to -1 at ``limit``, -1 beyond.
    """
    penalty: Floats = np.clip((limit - buffer - counts) / max(buffer, 1), -1.0, 0.0)
    return penalty


def not_uniform(sequences: Sequences) -> Flags:
    """[B]: in a group whose rewards differ (DAPO's dynamic sampling, equation 11, for what has already been sampled).

    ``processor.drop_uniform_groups`` does it before the trainer counts groups, so that steps stay full.
    """
    size = int(sequences.groups.max()) + 1
    highest, lowest = np.full(size, -np.inf), np.full(size, np.inf)
    np.maximum.at(highest, sequences.groups, sequences.rewards)
    np.minimum.at(lowest, sequences.groups, sequences.rewards)
    kept: Flags = (highest > lowest)[sequences.groups]
    return kept


def not_truncated(sequences: Sequences) -> Flags:
    """[B]: ended by itself (DAPO's overlong filtering, section 3.4). Its reward still counts for its group."""
    return ~sequences.truncated


def best(sequences: Sequences, *, share: float = 0.5) -> Flags:
    """[B]: among the ``share`` of highest rewards of its group, ties included: rejection sampling within the step."""
    kept = np.zeros(len(sequences.rewards), dtype=np.bool_)
    for group in np.unique(sequences.groups):
        members = np.flatnonzero(sequences.groups == group)
        rewards = np.sort(sequences.rewards[members])[::-1]
        least = rewards[max(math.ceil(share * len(rewards)), 1) - 1]
        kept[members] = sequences.rewards[members] >= least
    return kept


def share_of_demonstrations(step: int, *, peak: float, valley: float, warmup: int, decay: int) -> float:
    """μ of step ``step`` (from 1): how much of the loss is the demonstrations'.

    Rises linearly to ``peak`` over ``warmup`` steps, then falls to ``valley`` over ``decay`` steps by a cosine
    (CHORD-μ, https://arxiv.org/abs/2508.11408). Without warm-up and decay it is ``valley``.
    """
    if step <= warmup:
        return peak * step / warmup
    if step >= warmup + decay:
        return valley
    return valley + (peak - valley) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / decay))
