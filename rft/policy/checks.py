"""What every policy asks of a request before it takes it."""

from __future__ import annotations

from collections.abc import Sequence

from rft.errors import PolicyError
from rft.policy.base import Sampling


def check_request(prompt: Sequence[int], sampling: Sampling, *, vocabulary: int, context: int) -> None:
    """Raise PolicyError unless a model with so many token ids and positions can continue ``prompt`` so."""
    if not prompt:
        raise PolicyError("the prompt is empty: it needs at least one token")
    if not 0 <= min(prompt) <= max(prompt) < vocabulary:
        raise PolicyError(f"the prompt has token ids outside the vocabulary of {vocabulary}")
    if sampling.max_tokens < 1:
        raise PolicyError(f"max_tokens is {sampling.max_tokens}, it must be at least 1")
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or sampling.seed < 0:
        raise PolicyError(f"temperature and seed must be >= 0 and top_p in (0, 1], got {sampling}")
    if len(prompt) + sampling.max_tokens > context:
        raise PolicyError(
            f"{len(prompt)} prompt tokens and max_tokens = {sampling.max_tokens} exceed the model's context "
            f"of {context}: shorten the prompt or lower rollout.max_tokens"
        )
