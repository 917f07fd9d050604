"""Adapts servers of OpenEnv, through the client of the package openenv-core: ``openenv:http://127.0.0.1:8000``.

Each process of ours has a session of its own on the server, so the server must allow that many
(``max_concurrent_envs``). Options:

- ``action_field``: the field of the server's action that takes the model's text; ``none``: the text is the whole action
  as JSON.
- ``observation_field``: the field of the observation that the model reads. By default all of them but ``done``,
  ``reward`` and ``metadata``: as text if there is one, else as JSON.
- ``prompt``: instructions before the first observation.
- ``reset``: further arguments of the server's reset, beside the seed.
- ``success_return``: the sum of rewards from which an episode is a success; without it episodes have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from openenv.core.generic_client import GenericEnvClient

from rft.environments.base import Step

FOREVER_S = 86_400.0
"""The client's own deadline: ours, which are settings, come before."""


class OpenEnvEnvironment:
    """A session on a server."""

    reusable = True

    def __init__(
        self,
        url: str,
        action_field: str = "message",
        observation_field: str | None = None,
        prompt: str = "",
        reset: Mapping[str, Any] | None = None,
        success_return: float | None = None,
    ) -> None:
        client = GenericEnvClient(base_url=url, message_timeout_s=FOREVER_S)
        # Later versions of the client are asynchronous and bring a synchronous front.
        self._client: Any = client.sync() if hasattr(client, "sync") else client
        self._client.connect()
        self._action_field = action_field
        self._observation_field = observation_field
        self._prompt = prompt
        self._reset = dict(reset or {})
        self._success_return = success_return
        self._return = 0.0

    def reset(self, seed: int, task: Mapping[str, Any]) -> str:
        result = self._client.reset(**{"seed": seed, **self._reset})
        self._return = 0.0
        return "\n".join(filter(None, [self._prompt, self._text(result.observation)]))

    def step(self, action: str) -> Step:
        if self._action_field == "none":
            try:
                fields = json.loads(action)
            except ValueError as error:
                return Step(f"The action is not JSON: {error}")
            if not isinstance(fields, dict):
                return Step("The action must be a JSON object.")
        else:
            fields = {self._action_field: action}
        result = self._client.step(fields)
        reward = None if result.reward is None else float(result.reward)
        self._return += reward or 0.0
        done = bool(result.done)
        success = None
        if done and self._success_return is not None:
            success = float(self._return >= self._success_return)
        return Step(self._text(result.observation), reward, done, success)

    def close(self) -> None:
        self._client.close()

    def _text(self, observation: Mapping[str, Any]) -> str:
        if self._observation_field is not None:
            chosen = observation[self._observation_field]
            return chosen if isinstance(chosen, str) else json.dumps(chosen, ensure_ascii=False)
        fields = {key: value for key, value in observation.items() if key not in ("done", "reward", "metadata")}
        values = list(fields.values())
        if len(values) == 1 and isinstance(values[0], str):
            return values[0]
        return json.dumps(fields, ensure_ascii=False)


def make(url: str, options: Mapping[str, Any]) -> OpenEnvEnvironment:
    return OpenEnvEnvironment(url, **options)
