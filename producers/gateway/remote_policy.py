"""Generates by explorers over HTTP. A session's requests go to one explorer; when that dies, they are repeated."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from producers.gateway.contract import OverloadedError
from producers.gateway.explorer_choice import Explorer, ExplorerChoice
from producers.gateway.explorer_keys import ExplorerKeys
from producers.gateway.generation_wire import PATH, read_generation, write_request
from rft.config import Config
from rft.errors import PolicyError, RequestError, WeightsError
from rft.policy.base import Generation, Sampling, check_request
from rft.policy.chat_template import ChatTemplate
from rft.policy.loading import TokenizerMixin, text_config
from rft.weights.transfer_spec import TransferSpec

CONNECT_S = 5.0
LOOK_EVERY_S = 0.5
"""How often a request that waits looks whether its explorer is still there."""
RETRY_AFTER_S = 1.0
MOST_FAILURES = 6
"""After so many failures of one request, its client decides whether to ask again."""
SHOWN_CHARS = 300

log = logging.getLogger("rft")


class RemotePolicies(TokenizerMixin):
    """Has a policy for each session. Use it in one event loop; it holds the tokenizer, no weights."""

    def __init__(self, config: Config, secret: str, choice: ExplorerChoice) -> None:
        """Load the tokenizer of ``policy.model``. Raises PolicyError.

        Args:
            config: The configuration.
            secret: What this gateway proves itself with.
            choice: Knows the explorers.
        """
        super().__init__(config.policy.model, config.policy.template_options)
        shape = text_config(config.policy.model)
        self._vocabulary, self._context = int(shape.vocab_size), int(shape.max_position_embeddings)
        self._wait_s = config.gateway.explorer_wait_s
        self._keys = ExplorerKeys(secret)
        self._choice = choice
        self._client: httpx.AsyncClient | None = None
        self.moved = 0
        """Requests that were repeated on another explorer."""
        self.tokens = 0
        """Tokens that explorers have generated."""

    def of(self, session: str) -> RemotePolicy:
        """Return the policy of one session."""
        return RemotePolicy(self, session)

    def forget(self, session: str) -> None:
        """Note that a session has ended."""
        self._choice.forget(session)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def generate(self, session: str, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens`` on the explorer of a session, or on another one if that fails.

        Raises RequestError, OverloadedError if all explorers have too much to do, PolicyError if there is none for
        ``gateway.explorer_wait_s``.
        """
        prompt = [int(token) for token in prompt_tokens]
        check_request(prompt, sampling, vocabulary=self._vocabulary, context=self._context)
        body = write_request(prompt, sampling)
        deadline = time.monotonic() + self._wait_s
        avoid: set[str] = set()
        failures = 0
        overloaded = False
        failure = "there is no explorer: is one running with gateway.serve = true?"
        while True:
            explorer = self._choice.choose(session, avoid)
            if explorer is None:
                if overloaded:
                    raise OverloadedError("all explorers have too much to do", RETRY_AFTER_S)
                if time.monotonic() >= deadline:
                    raise PolicyError(failure)
                await asyncio.sleep(LOOK_EVERY_S)
                avoid.clear()
                continue
            try:
                generation = read_generation(await self._ask(explorer, body), sampling)
            except _BusyError:
                overloaded = True
            except PolicyError as error:
                if isinstance(error, RequestError):
                    raise
                failures += 1
                if failures == MOST_FAILURES:
                    raise
                failure, deadline = str(error), time.monotonic() + self._wait_s
                self.moved += 1
                log.warning("session %s: %s; its request is repeated", session, error)
            else:
                self.tokens += len(generation.tokens)
                return generation
            avoid.add(explorer.member_id)

    async def _ask(self, explorer: Explorer, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return an explorer's answer. Raises RequestError, _BusyError, or PolicyError if another one may be asked."""
        request = asyncio.ensure_future(self._post(explorer, body))
        self._choice.asked(explorer)
        try:
            while not request.done():
                await asyncio.wait({request}, timeout=LOOK_EVERY_S)
                if not request.done() and not self._choice.is_there(explorer):
                    raise PolicyError(f"{explorer.member_id} is gone")
            response = request.result()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._choice.gone(explorer.member_id)
            raise PolicyError(f"{explorer.member_id} cannot be reached: {type(error).__name__}: {error}") from error
        finally:
            self._choice.answered(explorer)
            if not request.done():
                request.cancel()
                await asyncio.wait({request})
        return _content(explorer, response)

    async def _post(self, explorer: Explorer, body: Mapping[str, Any]) -> httpx.Response:
        if self._client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=30.0)
            timeout = httpx.Timeout(None, connect=CONNECT_S)
            # No proxy of the environment: explorers are in our own network.
            self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)
        key = {"authorization": f"Bearer {self._keys.key(explorer.url)}"}
        return await self._client.post(explorer.url + PATH, json=body, headers=key)


class RemotePolicy:
    """Is a :class:`rft.policy.base.Policy` for one session. The explorers take new weights by themselves."""

    def __init__(self, policies: RemotePolicies, session: str) -> None:
        self._policies = policies
        self._session = session

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens``; see :meth:`RemotePolicies.generate`."""
        return await self._policies.generate(self._session, prompt_tokens, sampling)

    @property
    def version(self) -> int:
        """Always -1: each token says which version wrote it."""
        return -1

    @property
    def error(self) -> Exception | None:
        """Always None: explorers come back."""
        return None

    @property
    def stats(self) -> Mapping[str, float]:
        return {"tokens": float(self._policies.tokens), "moved": float(self._policies.moved)}

    @property
    def context(self) -> int:
        return self._policies.context

    @property
    def chat(self) -> ChatTemplate:
        return self._policies.chat

    def encode(self, text: str) -> list[int]:
        return self._policies.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._policies.decode(tokens)

    def update_weights(self, path: Path, version: int) -> None:
        """Do nothing: explorers follow the weights."""

    @property
    def receivers(self) -> int:
        """Always 0: it takes part in no transfer."""
        return 0

    def receive_weights(self, specs: Sequence[TransferSpec], version: int) -> None:
        """Raise WeightsError, see ``receivers``."""
        raise WeightsError("a gateway takes no weights; its explorers do")

    def abort_transfer(self) -> None:
        """Do nothing: there is no transfer."""

    def close(self) -> None:
        """Do nothing: the connections belong to all sessions."""


class _BusyError(Exception):
    """An explorer has too much to do."""


def _content(explorer: Explorer, response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise PolicyError(f"{explorer.member_id} answered {response.status_code} without JSON")
    if response.status_code == 200:
        return content
    message = str(content.get("message", ""))[:SHOWN_CHARS]
    if response.status_code == 429:
        raise _BusyError
    if response.status_code in (400, 413, 415):
        raise RequestError(message)
    raise PolicyError(f"{explorer.member_id} answered {response.status_code}: {message}")
