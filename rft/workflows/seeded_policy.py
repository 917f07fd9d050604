"""Gives each generation of one rollout random numbers of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rft.errors import RolloutError
from rft.policy.base import Generation, Policy, Sampling
from rft.policy.chat_template import ChatTemplate
from rft.weights.transfer_spec import TransferSpec


class SeededPolicy:
    """Is a policy for one rollout.

    A workflow passes the sampling that it was given to each of its generations. With one seed they would all draw the
    same random numbers, and a model that answers twice would nearly always answer the same. So the second and later
    generations with that seed get seeds of their own, which depend on it and on the order of the calls. A seed that the
    workflow chose itself stays as it is.
    """

    def __init__(self, policy: Policy, seed: int) -> None:
        """``seed`` is the one in the workflow's sampling."""
        self._policy = policy
        self._seed = seed
        self._calls = 0
        self._revoked = False

    def revoke(self) -> None:
        """Generate nothing any more: the rollout has ended, and its workflow has not."""
        self._revoked = True

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens``, as :meth:`rft.policy.base.Policy.generate` does.

        Raises RolloutError once it is revoked.
        """
        if self._revoked:
            raise RolloutError("this rollout has ended at its deadline; let CancelledError pass")
        if sampling.seed == self._seed:
            sampling = replace(sampling, seed=seed_of_call(self._seed, self._calls))
            self._calls += 1
        return await self._policy.generate(prompt_tokens, sampling)

    @property
    def version(self) -> int:
        return self._policy.version

    @property
    def error(self) -> Exception | None:
        return self._policy.error

    @property
    def stats(self) -> Mapping[str, float]:
        return self._policy.stats

    @property
    def receivers(self) -> int:
        return self._policy.receivers

    @property
    def context(self) -> int:
        return self._policy.context

    @property
    def chat(self) -> ChatTemplate:
        return self._policy.chat

    def encode(self, text: str) -> list[int]:
        return self._policy.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._policy.decode(tokens)

    def update_weights(self, path: Path, version: int) -> None:
        self._policy.update_weights(path, version)

    def receive_weights(self, specs: Sequence[TransferSpec], version: int) -> None:
        self._policy.receive_weights(specs, version)

    def abort_transfer(self) -> None:
        self._policy.abort_transfer()

    def close(self) -> None:
        self._policy.close()


def seed_of_call(seed: int, call: int) -> int:
    """Return the seed of a rollout's generation: the rollout's own for its first one (``call`` 0), 31 bits."""
    if call == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{call}".encode(), digest_size=4).digest(), "big") >> 1
