"""Text generation with a version stamp on every token.

``base.py`` is the contract of a policy. Its backends are ``transformers/``, ``vllm/`` and ``openai.py``.
``open_policy`` opens the one that the configuration names, and imports only what that one needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rft.config import Config
    from rft.policy.base import Policy

__all__ = ["open_policy"]


def open_policy(config: Config) -> Policy:
    """Load ``policy.model`` into the engine that ``policy.engine`` names. Raises PolicyError."""
    if config.policy.engine == "vllm":
        from rft.policy.vllm.policy import VllmPolicy

        adapters = config.weights.content == "adapters" and config.run.mode in ("online", "train")
        return VllmPolicy(config.policy, config.run.seed, lora_rank=config.trainer.lora.rank if adapters else 0)
    if config.policy.engine == "openai":
        from rft.policy.base import Sampling
        from rft.policy.openai import OpenAIPolicy

        rollout = config.rollout
        return OpenAIPolicy(
            config.policy,
            config.run.seed,
            training=Sampling(rollout.max_tokens, rollout.temperature, rollout.top_p),
            on_policy=config.algorithm.name != "sft",
        )
    from rft.policy.transformers.policy import TransformersPolicy

    return TransformersPolicy(config.policy, config.run.seed)
