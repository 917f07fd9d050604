"""A text environment that registers itself with gymnasium when it is imported."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.spaces import Text


class Echo(gymnasium.Env[str, str]):
    observation_space = Text(100)
    action_space = Text(100)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return f"seed {seed}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return f"heard {action}", 1.0, False, False, {}


gymnasium.register("Echo-v0", Echo, max_episode_steps=3)
