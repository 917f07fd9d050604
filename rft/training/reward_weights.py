"""Finds the weight that the processors gave to each named reward, for algorithms that normalize rewards one by one."""

from __future__ import annotations

from collections.abc import Callable

from rft.algorithms.algorithm import Algorithm
from rft.config import ProcessorConfig
from rft.errors import ConfigError
from rft.rewards.scorer import labels
from rft.stream.combine import FUNCTIONS


def reward_weights(config: ProcessorConfig) -> Callable[[str], float]:
    """Return a function from a reward's name, as in ``ScoredExperience.rewards``, to its weight in the sample's reward.

    A reward function's weight is that of its term, also for each of several rewards by name that it returned, times
    that of all functions. An external source has its own. A reward that came with the experience counts as a function.
    """
    own = dict(zip(labels(config.rewards), (term.weight for term in config.rewards), strict=True))
    # The longest first: one label may begin with another.
    ordered = sorted(own.items(), key=lambda item: -len(item[0]))
    external, functions = config.external, config.external.weights.get(FUNCTIONS, 1.0)

    def weight_of(name: str) -> float:
        if name in (*external.required, *external.optional):
            return external.weights.get(name, 1.0)
        found = (weight for label, weight in ordered if name == label or name.startswith(f"{label}."))
        return functions * next(found, 1.0)

    return weight_of


def check_reward_terms(algorithm: Algorithm, config: ProcessorConfig) -> None:
    """Raise ConfigError if ``algorithm`` needs rewards that are added up, and the processors multiply them."""
    if algorithm.needs.reward_terms and config.external.combine == "product":
        raise ConfigError(
            f"algorithm.name = '{algorithm.name}' normalizes each named reward and adds them up, but "
            "processor.external.combine = 'product' multiplies them. Set combine = 'weighted_sum', or another "
            "algorithm.advantage"
        )
