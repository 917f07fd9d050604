"""Continuous batching: sequences join the running batch after their prefill and leave it when they end.

This file neither starts threads nor waits; :mod:`rft.policy.transformers.policy` drives a ``RunningBatch`` token by
token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rft.errors import PolicyError
from rft.policy.base import Generation, Sampling
from rft.policy.transformers.kv_cache import AlignedCache, new_cache
from rft.policy.transformers.sampling import sample_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(eq=False)
class Request:
    """One sequence, from its prompt to its result."""

    prompt: tuple[int, ...]
    sampling: Sampling
    random: np.random.Generator
    future: Future[Generation] = field(default_factory=Future)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    failed: bool = False

    def finish(self, reason: str) -> None:
        """Resolve the future, unless it was canceled."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(
                Generation(
                    tokens=np.array(self.tokens, dtype=np.int32),
                    logprobs=np.array(self.logprobs, dtype=np.float32),
                    versions=np.array(self.versions, dtype=np.int32),
                    finish_reason=reason,
                )
            )

    def fail(self, error: PolicyError) -> None:
        """Fail the future, unless it is resolved or was canceled."""
        self.failed = True
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class RunningBatch:
    """The sequences that are being generated now, and their key-value cache."""

    def __init__(self, model: PreTrainedModel, end_tokens: frozenset[int], decode: Callable[[list[int]], str]) -> None:
        """``decode`` returns the text of tokens, special ones spelled out."""
        self._model = model
        self._decode = decode
        self._device = next(model.parameters()).device
        self._layers = int(model.config.get_text_config().num_hidden_layers)
        self._end_tokens = end_tokens
        self._cache: AlignedCache | None = None
        self._last = torch.zeros(0, dtype=torch.int64, device=self._device)
        self.requests: list[Request] = []

    def prefill(self, requests: Sequence[Request], version: int) -> list[Request]:
        """Read the prompts, sample the first token of each, and let the unfinished join. Return those that ended.

        A prompt that several requests share is read once.
        """
        prompts = list(dict.fromkeys(request.prompt for request in requests))
        prompt_rows = {prompt: row for row, prompt in enumerate(prompts)}
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        # Padding on the right: under a causal mask no real token sees it, and no row is masked completely.
        tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        last_positions, last_index = torch.unique(lengths - 1, return_inverse=True)
        output = self._model(
            input_ids=tokens.to(self._device),
            past_key_values=new_cache(self._layers),
            use_cache=True,
            logits_to_keep=last_positions.to(self._device),
        )
        rows = torch.tensor([prompt_rows[request.prompt] for request in requests], device=self._device)
        logits = output.logits[rows, last_index.to(self._device)[rows]]
        cache = AlignedCache.from_right_padded(output.past_key_values, lengths.to(self._device), rows)
        last, ended = self._sample(requests, logits, version)
        staying = [row for row in range(len(requests)) if row not in ended]
        if staying:
            keep = torch.tensor(staying, device=self._device)
            if ended:
                cache.keep(keep)
            self._join([requests[row] for row in staying], cache, last[keep])
        return [requests[row] for row in ended]

    def decode(self, version: int) -> list[Request]:
        """Sample one more token of every running sequence. Return those that ended; they have left the batch."""
        cache = self._cache
        assert cache is not None
        output = self._model(
            input_ids=self._last[:, None],
            attention_mask=cache.mask(),
            position_ids=cache.lengths[:, None],
            past_key_values=cache.cache,
            use_cache=True,
        )
        cache.count_appended()
        self._last, ended = self._sample(self.requests, output.logits[:, -1], version)
        finished = [self.requests[row] for row in ended]
        self._drop(ended)
        return finished

    def drop_canceled(self) -> None:
        """Drop the sequences whose requests were canceled."""
        self._drop({row for row, request in enumerate(self.requests) if request.future.cancelled()})

    def clear(self) -> list[Request]:
        """Empty the batch, and return the requests that were in it."""
        requests, self.requests, self._cache = self.requests, [], None
        return requests

    def _join(self, requests: Sequence[Request], cache: AlignedCache, last: Tensor) -> None:
        if self._cache is None:
            self._cache, self._last = cache, last
        else:
            self._cache.append(cache)
            self._last = torch.cat([self._last, last])
        self.requests = [*self.requests, *requests]

    def _drop(self, rows: set[int]) -> None:
        if not rows:
            return
        staying = [row for row in range(len(self.requests)) if row not in rows]
        self.requests = [self.requests[row] for row in staying]
        if not staying:
            self._cache = None
        elif self._cache is not None:
            keep = torch.tensor(staying, device=self._device)
            self._cache.keep(keep)
            self._last = self._last[keep]

    def _sample(self, requests: Sequence[Request], logits: Tensor, version: int) -> tuple[Tensor, set[int]]:
        """Sample and record the next token of each row of ``logits`` [B, V]. Return tokens [B] and ended rows."""
        samplings = [request.sampling for request in requests]
        uniforms = [request.random.random(dtype=np.float32) for request in requests]
        tokens, logprobs = sample_tokens(
            logits.float(),
            torch.tensor(uniforms, device=self._device),
            torch.tensor([sampling.temperature for sampling in samplings], device=self._device),
            torch.tensor([sampling.top_p for sampling in samplings], device=self._device),
        )
        ended: set[int] = set()
        for row, (request, token, logprob) in enumerate(zip(requests, tokens.tolist(), logprobs.tolist(), strict=True)):
            if not math.isfinite(logprob):
                request.fail(PolicyError(f"the model's logits are not finite at weight version {version}"))
                ended.add(row)
                continue
            request.tokens.append(token)
            request.logprobs.append(logprob)
            request.versions.append(version)
            if token in self._end_tokens or self._met_stop(request):
                request.finish("stop")
                ended.add(row)
            elif len(request.tokens) >= request.sampling.max_tokens:
                request.finish("length")
                ended.add(row)
        return tokens, ended

    def _met_stop(self, request: Request) -> bool:
        """Return whether the last token completed one of the request's stop texts."""
        stops = request.sampling.stop
        if not stops:
            return False
        # A character may need four tokens.
        tail = self._decode(request.tokens[-(4 * max(map(len, stops)) + 4) :])
        return any(stop in tail for stop in stops)
