"""The policy that the configuration names. What it is made of is imported only when it is asked for."""

from __future__ import annotations

from rft.config import Config
from rft.policy.base import Policy, Sampling


def open_policy(config: Config) -> Policy:
    """Load ``policy.model`` into the engine that ``policy.engine`` names. Raises PolicyError."""
    if config.policy.engine == "vllm":
        from rft.policy.vllm_policy import VllmPolicy

        adapters = config.weights.content == "adapters" and config.run.mode in ("online", "train")
        return VllmPolicy(config.policy, config.run.seed, lora_rank=config.trainer.lora.rank if adapters else 0)
    if config.policy.engine == "openai":
        from rft.policy.openai_policy import OpenAIPolicy

        rollout = config.rollout
        return OpenAIPolicy(
            config.policy,
            config.run.seed,
            training=Sampling(rollout.max_tokens, rollout.temperature, rollout.top_p),
            on_policy=config.algorithm.name != "sft",
        )
    from rft.policy.transformers_policy import TransformersPolicy

    return TransformersPolicy(config.policy, config.run.seed)
