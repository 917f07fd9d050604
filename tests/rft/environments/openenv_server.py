"""A server made with the package openenv-core: guess a letter from a to d, which the seed decides."""

from __future__ import annotations

import random
import sys
from typing import Any

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app


class Guess(Action):
    message: str


class Hint(Observation):
    text: str


class LetterEnvironment(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Hint:
        self.letter = random.Random(seed).choice("abcd")
        self.steps = 0
        return Hint(text=f"A letter from a to d{kwargs.get('mark', '.')}")

    def step(self, action: Guess, timeout_s: float | None = None, **kwargs: Any) -> Hint:
        if action.message == "fail":
            raise RuntimeError("the server's fault")
        self.steps += 1
        right = action.message == self.letter
        hint = "right" if right else "earlier" if action.message > self.letter else "later"
        return Hint(text=hint, reward=float(right), done=right or self.steps == 3)

    @property
    def state(self) -> State:
        return State(step_count=self.steps)


if __name__ == "__main__":
    app = create_fastapi_app(LetterEnvironment, Guess, Hint, max_concurrent_envs=8)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
