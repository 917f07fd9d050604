"""Adapts environments of gymnasium whose observations are, or can be drawn as, text: ``gymnasium:FrozenLake-v1``.

A name ``module:Env-v0`` imports the module first, which registers the environment. Options of ours; all others go to
``gymnasium.make``:

- ``prompt``: instructions before the first observation.
- ``actions``: the names of a discrete space's actions, in order, or a table of names and numbers. Without it, the model
  writes the number.
- ``success_return``: the sum of rewards from which an episode is a success. By default ``reward_threshold`` of the
  environment's registration; if there is none, episodes have no success.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.spaces import Discrete, Text

from rft.environments.base import Step
from rft.errors import ConfigError

ANSI = "ansi"
"""The render mode that gives text."""
HIGHLIGHT = re.compile(r"\x1b\[[0-9;]*m(.*?)\x1b\[0m", re.DOTALL)
"""Text that stands out by its color, such as the player's place on a map."""


class GymnasiumEnvironment:
    """One environment of gymnasium. ``reset`` with a seed begins an episode that knows nothing of earlier ones."""

    reusable = True

    def __init__(
        self,
        name: str,
        prompt: str = "",
        actions: Sequence[str] | Mapping[str, int] = (),
        success_return: float | None = None,
        **options: Any,
    ) -> None:
        self._env: gymnasium.Env[Any, Any] = gymnasium.make(name, **options)
        if "render_mode" not in options and ANSI in (self._env.metadata.get("render_modes") or ()):
            self._env.close()
            self._env = gymnasium.make(name, render_mode=ANSI, **options)
        self._prompt = prompt
        space = self._env.action_space
        if not isinstance(space, Discrete | Text):
            raise ConfigError(
                f"gymnasium:{name} has actions of type {type(space).__name__}, it must be Discrete or Text"
            )
        self._numbers: dict[str, int] | None = None
        if isinstance(space, Discrete):
            first = int(space.start)
            names = actions or [str(number) for number in range(first, first + int(space.n))]
            self._numbers = dict(names) if isinstance(names, Mapping) else {n: first + i for i, n in enumerate(names)}
        spec = self._env.spec
        self._threshold = success_return if success_return is not None else spec.reward_threshold if spec else None
        self._return = 0.0

    def reset(self, seed: int, task: Mapping[str, Any]) -> str:
        observation, _ = self._env.reset(seed=seed)
        self._return = 0.0
        return "\n".join(filter(None, [self._prompt, self._text(observation)]))

    def step(self, action: str) -> Step:
        taken: Any = action
        if self._numbers is not None:
            taken = self._numbers.get(action.strip().strip("[]"))
            if taken is None:
                return Step(f"There is no action {action.strip()[:80]!r}. Choose one of {', '.join(self._numbers)}.")
        observation, reward, terminated, truncated, _ = self._env.step(taken)
        self._return += float(reward)
        done = bool(terminated or truncated)
        success = float(self._return >= self._threshold) if done and self._threshold is not None else None
        return Step(
            self._text(observation), float(reward), done, success, {"truncated": bool(truncated)} if done else {}
        )

    def close(self) -> None:
        self._env.close()

    def _text(self, observation: object) -> str:
        if isinstance(observation, str):
            return observation
        if self._env.render_mode == ANSI:
            return HIGHLIGHT.sub(r"[\1]", str(self._env.render())).strip()
        return str(observation)


def make(name: str, options: Mapping[str, Any]) -> GymnasiumEnvironment:
    return GymnasiumEnvironment(name, **options)
