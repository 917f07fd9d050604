"""Generates text with a transformers model: one background thread, one running batch, no waiting for stragglers."""

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
from rft.lora.adapter import Adapter
from rft.lora.base_model import LoraBaseModel
from rft.model_files.tensors import check_weights, copy_weights, read_weights
from rft.policy.base import Generation, Sampling, check_request
from rft.policy.loading import TokenizerMixin, end_tokens, load_model
from rft.policy.transformers.running_batch import Request, RunningBatch
from rft.weights.receiver import Receiver
from rft.weights.transfer_spec import TransferSpec

GATHER_S = 0.002
"""Seconds that an idle policy waits after a first request, so that a group's requests share one prefill."""

PREFILL_TOKENS = 16384
"""Most prompt tokens in one prefill, so that a flood of prompts does not hold up the running sequences for long."""

KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class TransformersPolicy(TokenizerMixin):
    """A :class:`rft.policy.base.Policy` that keeps up to ``max_batch`` sequences running at once.

    New requests join between two tokens as soon as there is room; finished ones leave and resolve at once. A failing
    batch fails its own requests only. After ``update_weights``, the sequences in flight keep the keys and values that
    the old weights computed; their next tokens come from the new weights and carry the new version.
    """

    def __init__(self, config: PolicyConfig, seed: int = 0, *, version: int = 0) -> None:
        """Load ``config.model``, whose weights count as ``version``. Raises PolicyError if it cannot be used."""
        self._seed = seed
        self._max_batch = config.max_batch
        self._threads = config.threads
        super().__init__(config.model, config.template_options)
        self._model = load_model(config.model, config.dtype, config.device)
        self._base_model = LoraBaseModel(config.model)
        shape = self._model.config.get_text_config()
        unknown = set(getattr(shape, "layer_types", None) or ()) - KNOWN_LAYERS
        if unknown:
            raise PolicyError(f"{config.model}: layers of type {sorted(unknown)[0]} are not supported by this engine")
        self._context = int(shape.max_position_embeddings)
        self._vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        self._batch = RunningBatch(
            self._model,
            end_tokens(self._model.generation_config, self._tokenizer),
            lambda tokens: self.chat.decode(tokens, special=True),
        )
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
        """The weight version that the next token will be stamped with."""
        return self._version

    @property
    def error(self) -> Exception | None:
        """Always None: the policy's thread survives every error that a model raises."""
        return None

    @property
    def stats(self) -> Mapping[str, float]:
        """Counters since the start, times in seconds.

        ``sequences`` ended well and ``failed`` did not; ``tokens`` were generated in ``steps`` forward passes and
        ``prefills``, which took ``generating_s``. There was nothing to do for ``waiting_s``, and new weights took
        ``resync_s``. ``running`` and ``queued`` count the sequences of this moment.
        """
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
        self._replace_weights(read_weights(path), Adapter.from_folder(path), version)

    @property
    def receivers(self) -> int:
        """Number of ranks that this policy needs in a collective transfer."""
        return 1

    def receive_weights(self, specs: Sequence[TransferSpec], version: int) -> None:
        """Take part in a collective transfer; see :meth:`rft.policy.base.Policy.receive_weights`.

        The tensors are received into separate memory while generation goes on; it pauses only for the copy from there.
        """
        (spec,) = specs
        device = self._model.device if spec.backend == "nccl" else "cpu"
        adapter = Adapter.from_metadata(spec.manifest.metadata)
        self._replace_weights(dict(self._receiver.receive(spec, device=device)), adapter, version)

    def abort_transfer(self) -> None:
        """Abort ``receive_weights``."""
        self._receiver.abort()

    def _replace_weights(self, tensors: dict[str, Tensor], adapter: Adapter | None, version: int) -> None:
        if adapter is not None:
            tensors = self._base_model.merge(tensors, adapter)
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
                self._generate_tokens()
        finally:
            self._fail_unfinished()

    def _wait_for_work(self) -> bool:
        """Block while there is nothing to do. Return False if the policy was closed."""
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

    def _generate_tokens(self) -> None:
        """Generate one token for every running sequence, and a first one for those that now find room."""
        began = time.monotonic()
        batch, version = self._batch, self._version
        batch.drop_canceled()
        joining = self._next_requests()
        if batch.requests:
            self._stats["steps"] += 1
            if not self._forward(batch.requests, lambda: batch.decode(version)):
                batch.clear()
        if joining:
            self._stats["prefills"] += 1
            self._forward(joining, lambda: batch.prefill(joining, version))
        self._stats["generating_s"] += time.monotonic() - began

    def _next_requests(self) -> list[Request]:
        """Take waiting requests off the queue, as far as the batch and one prefill have room for them."""
        joining: list[Request] = []
        room = self._max_batch - len(self._batch.requests)
        tokens = 0
        while self._waiting and len(joining) < room and tokens < PREFILL_TOKENS:
            request = self._waiting.popleft()
            if not request.future.cancelled():
                joining.append(request)
                tokens += len(request.prompt)
        return joining

    def _forward(self, requests: Sequence[Request], forward: Callable[[], list[Request]]) -> bool:
        """Call ``forward``, which returns the requests that ended. If it raises, fail ``requests`` and return False."""
        try:
            ended = forward()
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

    def _fail_unfinished(self) -> None:
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
