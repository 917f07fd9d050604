"""Which well-formed experiences are kept out of training, and why."""

from __future__ import annotations

from rft.config import ProcessorConfig
from schemas.events import Experience


def filter_cause(experience: Experience, config: ProcessorConfig) -> str | None:
    """Why this member is not to be trained on; None when it is usable.

    Held-out rollouts are filtered only when they failed: an evaluation counts all answers, long and cut ones too.
    """
    if experience.finish_reason == "error":
        return "rollout_failed"
    if experience.split == "eval":
        return None
    written = int(experience.action_mask.sum())
    if written == 0:
        return "empty"
    if config.max_response_tokens is not None and written > config.max_response_tokens:
        return "too_long"
    if config.drop_truncated and experience.finish_reason == "length":
        return "truncated"
    return None
