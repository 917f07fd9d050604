"""The contract of an environment: reset, step, close.

An environment is a class. Its constructor takes ``rollout.environment_options`` as keyword arguments. It lives in a
process of its own (:mod:`rft.environments.worker`), so it may block, print and use threads. Whatever it raises fails
the rollout that it serves and nothing else.

    class Guess:
        def reset(self, seed, task):
            self.number = random.Random(seed).randint(1, 7)
            return "Guess a number from 1 to 7."

        def step(self, action):
            if action == str(self.number):
                return Step("", reward=1.0, done=True, success=1.0)
            return Step("higher" if action < str(self.number) else "lower")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = Mapping[str, Any]
"""A message in OpenAI's chat format: ``role`` and ``content``."""
Observation = str | Sequence[Message]
"""What the model reads next: a text, which becomes a user's message, or messages. Empty if there is nothing to read."""

SEED = "environment_seed"
"""Key of a task's metadata with the seed of its episodes. Of tasks without it, the task's own seed is taken."""
MAX_SEED = 2**31 - 1
SUCCESS = "success"
"""Name of the reward that says how well an episode went. It counts in evaluations, not in training."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one action led to."""

    observation: Observation
    reward: float | None = None
    """Reward of this action; None if it has none. The rollout's reward is the sum."""
    done: bool = False
    """Whether the episode has ended."""
    success: float | None = None
    """How well the whole episode went, 0 to 1: the figure of an evaluation. With the last step, or never."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON values. Those of the last step are kept with the experience."""


class Environment(Protocol):
    """One environment. It serves one episode at a time; its methods are called from one thread."""

    # Two more attributes are optional. ``reusable``, False by default: whether ``reset`` begins a new episode that
    # knows nothing of earlier ones, so that the process serves the next rollout, too. ``close()``: gives back what the
    # environment holds; it is called before its process ends in good order.

    def reset(self, seed: int, task: Mapping[str, Any]) -> Observation:
        """Begin the episode that ``seed`` decides, and return the first observation.

        Args:
            seed: 0 to 2^31 - 1. All rollouts of a group have the same, so that their rewards compare.
            task: ``prompt``, ``answer`` (or None) and ``metadata`` of the task, plain JSON values.
        """
        ...

    def step(self, action: str) -> Step:
        """Apply what the model wrote."""
        ...
