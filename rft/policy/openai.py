"""Generates text by a server with OpenAI's completions API that returns token ids and logprobs, as vLLM's does.

The server keeps its own weights. New versions are not sent to it, and its tokens are stamped with the version that the
policy was opened with. So the trainer counts them as stale once it has published newer versions.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from rft.config import PolicyConfig
from rft.errors import PolicyError, WeightsError
from rft.policy.base import Generation, Sampling, check_request
from rft.policy.loading import TokenizerMixin, text_config
from rft.policy.loop_thread import LoopThread
from rft.weights.transfer_spec import TransferSpec

CONNECT_S = 10.0
EQUAL_WITHIN = 1e-4
"""Logprobs that differ by less are equal, up to the rounding of differently composed batches."""
SHOWN_CHARS = 300
"""Characters of a server's answer that an error quotes."""
STOPS_KEPT = {"include_stop_str_in_output": True, "skip_special_tokens": False}
"""vLLM's settings by which a stop text is found and kept in the answer."""
PROBE_TOKENS = 8
"""Length of the prompt that examines a server. One token may be padding: its embedding is zero, and after it all tokens
are equally likely at any temperature."""

log = logging.getLogger("rft")


class OpenAIPolicy(TokenizerMixin):
    """A :class:`rft.policy.base.Policy` over HTTP. The server does the batching."""

    def __init__(
        self, config: PolicyConfig, seed: int = 0, *, version: int = 0, training: Sampling, on_policy: bool
    ) -> None:
        """Connect to the server and examine its answers.

        Args:
            config: its ``model`` is the folder of tokenizer and configuration.
            seed: of the run.
            version: the weight version that tokens are stamped with.
            training: how rollouts will be sampled.
            on_policy: whether the algorithm needs the logprobs that the tokens were sampled with.

        Raises PolicyError if the server cannot be reached or does not return what the algorithm needs.
        """
        self._settings = config.openai
        self._seed = seed
        self._version = version
        self._on_policy = on_policy
        super().__init__(config.model, config.template_options)
        shape = text_config(config.model)
        self._vocabulary, self._context = int(shape.vocab_size), int(shape.max_position_embeddings)
        self._stats = dict.fromkeys(("sequences", "failed", "tokens", "running"), 0.0)
        self._warned = False
        key = os.environ.get(self._settings.api_key_env, "")
        self._client = httpx.AsyncClient(
            base_url=self._settings.base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self._settings.timeout_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=config.max_batch),
        )
        self._loop = LoopThread()
        try:
            self._model = self._settings.model or self._loop.call(self._only_model()).result()
            self._loop.call(self._examine(training)).result()
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> int:
        """The weight version that all tokens are stamped with."""
        return self._version

    @property
    def error(self) -> Exception | None:
        """Always None: a server may come back, so its absence fails rollouts, not the policy."""
        return None

    @property
    def stats(self) -> Mapping[str, float]:
        """Counters since the start: ``sequences`` ended well and ``failed`` did not, ``tokens`` were generated.

        ``running`` counts the sequences of this moment.
        """
        return dict(self._stats)

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens``; see :meth:`rft.policy.base.Policy.generate`."""
        prompt = [int(token) for token in prompt_tokens]
        check_request(prompt, sampling, vocabulary=self._vocabulary, context=self._context)
        return await asyncio.wrap_future(self._loop.call(self._generate(prompt, sampling)))

    def update_weights(self, path: Path, version: int) -> None:
        """Leave the server as it is, and warn about it once."""
        if not self._warned:
            self._warned = True
            log.warning(
                "the server at %s keeps its own weights: its tokens stay those of version %d, though %d is announced",
                self._settings.base_url,
                self._version,
                version,
            )

    @property
    def receivers(self) -> int:
        """Always 0: the server takes part in no transfer."""
        return 0

    def receive_weights(self, specs: Sequence[TransferSpec], version: int) -> None:
        """Raise WeightsError, see ``receivers``."""
        raise WeightsError(f"the server at {self._settings.base_url} keeps its own weights")

    def abort_transfer(self) -> None:
        """Do nothing: there is no transfer."""

    def close(self) -> None:
        """Close the connections. Unfinished requests fail with PolicyError."""
        self._loop.close(self._client.aclose())

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Generation:
        self._stats["running"] += 1
        try:
            choice = await self._complete(prompt, sampling)
            generation = self._as_generation(choice)
        except PolicyError:
            self._stats["failed"] += 1
            raise
        finally:
            self._stats["running"] -= 1
        self._stats["sequences"] += 1
        self._stats["tokens"] += len(generation.tokens)
        return generation

    async def _complete(self, prompt: list[int], sampling: Sampling) -> dict[str, Any]:
        answer = await self._request(
            "POST",
            "completions",
            {
                "model": self._model,
                "prompt": prompt,
                "max_tokens": sampling.max_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "seed": int(np.random.SeedSequence([self._seed, sampling.seed]).generate_state(1)[0] >> 1),
                "logprobs": 1,
                "return_token_ids": True,
                **({"stop": list(sampling.stop), **STOPS_KEPT} if sampling.stop else {}),
            },
        )
        try:
            return dict(answer["choices"][0])
        except (KeyError, IndexError, TypeError) as error:
            raise PolicyError(f"{self._settings.base_url} returned a completion without choices") from error

    def _as_generation(self, choice: Mapping[str, Any]) -> Generation:
        tokens = np.array(choice.get("token_ids") or [], dtype=np.int32)
        logprobs = _sampled_logprobs(choice)
        if logprobs is None and not self._on_policy:
            logprobs = np.zeros(len(tokens), dtype=np.float32)
        if not len(tokens) or logprobs is None or len(tokens) != len(logprobs):
            found = "no" if logprobs is None else len(logprobs)
            raise PolicyError(f"{self._settings.base_url} returned {len(tokens)} token ids with {found} logprobs")
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length") or not np.isfinite(logprobs).all():
            raise PolicyError(f"{self._settings.base_url} ended a completion with {reason!r}")
        return Generation(tokens, logprobs, np.full(len(tokens), self._version, np.int32), reason)

    async def _only_model(self) -> str:
        listed = (await self._request("GET", "models")).get("data") or []
        names = [str(model.get("id")) for model in listed]
        if len(names) != 1:
            raise PolicyError(
                f"{self._settings.base_url} serves {', '.join(names) or 'no model'}: set policy.openai.model"
            )
        return names[0]

    async def _examine(self, training: Sampling) -> None:
        """Refuse a server whose answers cannot be learned from, before rollouts are spent on it."""
        server = self._settings.base_url
        prompt = [self._vocabulary * part // (PROBE_TOKENS + 1) for part in range(1, PROBE_TOKENS + 1)]
        plain = await self._complete(prompt, Sampling(max_tokens=1, temperature=1.0))
        if not plain.get("token_ids"):
            raise PolicyError(
                f"{server} returns text, but no token ids, and the trainer learns from tokens: use a server that "
                "knows return_token_ids, such as vLLM from 0.10.2 on"
            )
        if not self._on_policy:
            return
        if _sampled_logprobs(plain) is None:
            raise PolicyError(
                f"{server} returns no logprobs, and algorithm.name weighs each token by the probability that it was "
                'sampled with: use a server that returns them, or algorithm.name = "sft"'
            )
        if training.temperature in (0, 1) and training.top_p == 1:
            return
        tempered = await self._complete(prompt, Sampling(1, training.temperature, training.top_p))
        if abs(_highest_logprob(tempered) - _highest_logprob(plain)) < EQUAL_WITHIN:
            raise PolicyError(
                f"{server} returns the model's own logprobs, not those of temperature {training.temperature:g} "
                f"and top_p {training.top_p:g}: start vLLM with --logprobs-mode processed_logprobs, or set "
                "rollout.temperature and rollout.top_p to 1"
            )

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        server = self._settings.base_url
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise PolicyError(f"{server} did not answer in time (policy.openai.timeout_s)") from error
        except httpx.HTTPError as error:
            cause = str(error) or type(error).__name__
            raise PolicyError(f"{server} cannot be reached: {cause}; is the server up?") from error
        if answer.status_code in (401, 403):
            name = self._settings.api_key_env
            state = "is not accepted" if os.environ.get(name) else "is not set"
            raise PolicyError(f"{server} requires an API key, and the one in the environment variable {name} {state}")
        if answer.is_error:
            raise PolicyError(f"{server}{'/' + path} answers {answer.status_code}: {answer.text[:SHOWN_CHARS]}")
        try:
            return dict(answer.json())
        except (ValueError, TypeError) as error:
            raise PolicyError(f"{server} does not answer JSON: {answer.text[:SHOWN_CHARS]}") from error


def _sampled_logprobs(choice: Mapping[str, Any]) -> np.ndarray | None:
    """Return the sampled tokens' logprobs, float32 [N], or None if the server returned none."""
    given = (choice.get("logprobs") or {}).get("token_logprobs")
    if not given or None in given:
        return None
    return np.array(given, dtype=np.float32)


def _highest_logprob(choice: Mapping[str, Any]) -> float:
    """Return the highest logprob of the first token, which does not depend on which token was drawn."""
    top = ((choice.get("logprobs") or {}).get("top_logprobs") or [{}])[0]
    return max(top.values(), default=float(choice["logprobs"]["token_logprobs"][0]))
