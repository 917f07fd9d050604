"""Text generation with a transformers model: one background thread, one running batch, no waiting for stragglers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rft.config import PolicyConfig
from rft.errors import PolicyError
from rft.policy.adapted import AdapterBase
from rft.policy.base import Generation, Sampling
from rft.policy.checks import check_request
from rft.policy.generation import Request, RunningBatch
from rft.policy.loading import end_tokens, load_model
from rft.policy.tensors import check_weights, copy_weights, read_weights
from rft.policy.tokenized import Tokenized
from rft.weights.adapters import Adapter
from rft.weights.receiving import Receiver
from rft.weights.reception import Reception

GATHER_S = 0.002
"""How long an idle policy waits after a first request, so that a group that arrives together is read together."""

PREFILL_TOKENS = 16384
"""Prompt tokens that are read at once, so that a flood of prompts does not hold up the running sequences for long."""

KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class TransformersPolicy(Tokenized):
    """A :class:`rft.policy.base.Policy` that keeps up to ``max_batch`` sequences running at once.

    New requests join between two tokens as soon as there is room; finished ones leave and resolve at once. A failing
    batch fails its own requests only. After ``update_weights`` the sequences in flight keep the keys and values that
    the old weights computed; their next tokens come from the new weights and say so.
    """

    def __init__(self, config: PolicyConfig, seed: int = 0, *, version: int = 0) -> None:
        """Load ``config.model``, whose weights count as ``version``. Raises PolicyError if it cannot be used."""
        self._seed = seed
        self._max_batch = config.max_batch
        self._threads = config.threads
        super().__init__(config.model)
        self._model = load_model(config.model, config.dtype, config.device)
        self._beneath = AdapterBase(config.model)
        shape = self._model.config.get_text_config()
        unknown = set(getattr(shape, "layer_types", None) or ()) - KNOWN_LAYERS
        if unknown:
            raise PolicyError(f"{config.model}: layers of type {sorted(unknown)[0]} are not supported by this engine")
        self._context = int(shape.max_position_embeddings)
        self._vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        self._batch = RunningBatch(self._model, end_tokens(self._model.generation_config, self._tokenizer))
        self._version = version
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._new_weights: deque[tuple[dict[str, Tensor], int, Future[None]]] = deque()
        self._closed = False
        self._receiver = Receiver()
        self._stats = dict.fromkeys(
            ("sequences", "failed", "tokens", "prefills", "steps", "generating_s", "waiting_s", "resync_s"), 0.0
        )
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
        self._thread.start()

    @property
    def version(self) -> int:
        """Weight version that the next token will be stamped with."""
        return self._version

    @property
    def error(self) -> Exception | None:
        """Its own thread survives whatever a model raises."""
        return None

    @property
    def stats(self) -> Mapping[str, float]:
        """``sequences`` and ``failed`` ended, ``tokens`` written in ``steps`` forward passes and ``prefills``;
        ``generating_s``, ``waiting_s`` (nothing to do) and ``resync_s``; ``running`` and ``queued`` now."""
        return {**self._stats, "running": float(len(self._batch.requests)), "queued": float(len(self._waiting))}

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens``; see :meth:`rft.policy.base.Policy.generate`."""
        prompt = tuple(int(token) for token in prompt_tokens)
        check_request(prompt, sampling, vocabulary=self._vocabulary, context=self._context)
        request = Request(prompt, sampling, np.random.default_rng([self._seed, sampling.seed]))
        with self._changed:
            if self._closed:
                raise PolicyError("the policy is closed")
            self._waiting.append(request)
            self._changed.notify_all()
        return await asyncio.wrap_future(request.future)

    def update_weights(self, path: Path, version: int) -> None:
        """Use the weights in ``path`` from the next token on; see :meth:`rft.policy.base.Policy.update_weights`."""
        self._take(read_weights(path), Adapter.of_folder(path), version)

    @property
    def receivers(self) -> int:
        """Ranks that it needs in a collective transfer."""
        return 1

    def receive_weights(self, receptions: Sequence[Reception], version: int) -> None:
        """Take part in a collective transfer; see :meth:`rft.policy.base.Policy.receive_weights`.

        The tensors come to memory of their own while generation goes on; it pauses only for the copy from there.
        """
        (reception,) = receptions
        device = self._model.device if reception.backend == "nccl" else "cpu"
        adapter = Adapter.of_metadata(reception.manifest.metadata)
        self._take(dict(self._receiver.receive(reception, device=device)), adapter, version)

    def abort_reception(self) -> None:
        """Break off ``receive_weights``."""
        self._receiver.abort()

    def _take(self, tensors: dict[str, Tensor], adapter: Adapter | None, version: int) -> None:
        if adapter is not None:
            tensors = self._beneath.whole(tensors, adapter)
        check_weights(self._model, tensors)
        done: Future[None] = Future()
        with self._changed:
            if self._closed:
                raise PolicyError("the policy is closed")
            self._new_weights.append((tensors, version, done))
            self._changed.notify_all()
        done.result()

    def close(self) -> None:
        """Stop the thread; unfinished requests fail with PolicyError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._receiver.abort()
        self._thread.join()

    @torch.inference_mode()
    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        try:
            while self._wait_for_work():
                self._swap_weights()
                self._write_tokens()
        finally:
            self._abandon()

    def _wait_for_work(self) -> bool:
        """Block while there is nothing to do. False when the policy was closed."""
        with self._changed:
            if not (self._batch.requests or self._waiting or self._new_weights or self._closed):
                began = time.monotonic()
                self._changed.wait_for(lambda: self._waiting or self._new_weights or self._closed)
                self._stats["waiting_s"] += time.monotonic() - began
                if self._waiting:
                    self._changed.wait_for(lambda: len(self._waiting) >= self._max_batch, timeout=GATHER_S)
            return not self._closed

    def _swap_weights(self) -> None:
        while self._new_weights:
            began = time.monotonic()
            tensors, version, done = self._new_weights.popleft()
            copy_weights(self._model, tensors)
            self._version = version
            self._stats["resync_s"] += time.monotonic() - began
            done.set_result(None)

    def _write_tokens(self) -> None:
        """One token for every running sequence and a first one for those that now find room."""
        began = time.monotonic()
        batch, version = self._batch, self._version
        batch.drop_cancelled()
        joining = self._take_waiting()
        if batch.requests:
            self._stats["steps"] += 1
            if not self._try(batch.requests, lambda: batch.decode(version)):
                batch.clear()
        if joining:
            self._stats["prefills"] += 1
            self._try(joining, lambda: batch.prefill(joining, version))
        self._stats["generating_s"] += time.monotonic() - began

    def _take_waiting(self) -> list[Request]:
        taken: list[Request] = []
        room = self._max_batch - len(self._batch.requests)
        tokens = 0
        while self._waiting and len(taken) < room and tokens < PREFILL_TOKENS:
            request = self._waiting.popleft()
            if not request.future.cancelled():
                taken.append(request)
                tokens += len(request.prompt)
        return taken

    def _try(self, requests: Sequence[Request], write: Callable[[], list[Request]]) -> bool:
        """Write tokens; whatever goes wrong fails ``requests`` and nothing else."""
        try:
            ended = write()
        except Exception as error:
            for request in requests:
                request.fail(PolicyError(f"generation failed: {type(error).__name__}: {error}"))
            self._stats["failed"] += len(requests)
            return False
        failed = sum(request.failed for request in ended)
        self._stats["failed"] += failed
        self._stats["sequences"] += len(ended) - failed
        self._stats["tokens"] += sum(len(request.tokens) for request in ended)
        return True

    def _abandon(self) -> None:
        with self._changed:
            self._closed = True
            requests = [*self._batch.clear(), *self._waiting]
            self._waiting.clear()
            updates = [done for _, _, done in self._new_weights]
            self._new_weights.clear()
        error = PolicyError("the policy was closed before this was done")
        for request in requests:
            request.fail(error)
        for done in updates:
            done.set_exception(error)
