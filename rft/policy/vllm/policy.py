"""Generates text with vLLM: an engine in a child process, driven by an event loop on its own thread."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rft.config import PolicyConfig
from rft.errors import EngineDiedError, PolicyError, WeightsError, first_line
from rft.lora.adapter import Adapter
from rft.lora.base_model import LoraBaseModel
from rft.model_files.tensors import read_shapes
from rft.policy.base import Generation, Sampling, check_request
from rft.policy.loading import TokenizerMixin, end_tokens, generation_config, text_config
from rft.policy.loop_thread import LoopThread
from rft.policy.vllm.engine_start import runs_on_cpu, start_engine
from rft.policy.vllm.update import (
    SHUTDOWN_S,
    LoadOptions,
    WeightSource,
    load_adapters,
    load_model,
    lora_request,
    paused,
    stage,
)
from rft.weights.transfer_spec import TransferSpec

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput
    from vllm.v1.engine.async_llm import AsyncLLM

REFUSED_S = 0.05
"""Seconds to wait for an engine that refuses a request and is about to pause."""
TIED = "lm_head.weight"
"""May be missing from a file if the output layer is tied to the embedding."""


class VllmPolicy(TokenizerMixin):
    """A :class:`rft.policy.base.Policy` over vLLM's continuous batching, with prefix caching.

    New weights are fetched while the engine generates; it pauses only while they are loaded. vLLM itself stamps each
    token with the weight version that generated it. When the engine dies, ``error`` is set, and every call fails with
    EngineDiedError.
    """

    def __init__(self, config: PolicyConfig, seed: int = 0, *, version: int = 0, lora_rank: int = 0) -> None:
        """Start an engine on ``config.model``, whose weights count as ``version``. Raises PolicyError.

        With a ``lora_rank``, weight versions are adapters of up to this rank and not whole models.
        """
        self._config = config
        self._seed = seed
        super().__init__(config.model, config.template_options)
        self._base_model = LoraBaseModel(config.model)
        self._end_tokens = sorted(end_tokens(generation_config(self._base_model.folder), self._tokenizer))
        initial = Adapter.from_folder(config.model)
        merge = config.vllm.merge_adapters
        self._merge_adapters = runs_on_cpu(config) if merge is None else merge
        self._lora_rank = 0 if self._merge_adapters else max(lora_rank, initial.rank if initial else 0)
        self._with_adapters = False
        """Whether sequences are generated with loaded adapters."""
        self._shapes = read_shapes(self._base_model.folder)
        self._tied = bool(text_config(self._base_model.folder).tie_word_embeddings)
        self._version = version
        self._error: EngineDiedError | None = None
        self._request_numbers = itertools.count()
        self._running = 0
        self._stats = dict.fromkeys(
            ("sequences", "failed", "tokens", "requeued", "resync_s", "pause_s", "resyncs"), 0.0
        )
        self._updating = asyncio.Lock()
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._loop = LoopThread()
        try:
            self._engine = self._loop.call(self._start()).result()
        except BaseException:
            self._loop.close(_nothing())
            raise
        model = self._engine.model_config
        self._context = int(model.max_model_len)
        self._vocabulary = int(model.get_vocab_size())
        try:
            # The first request prepares kernels, for up to twenty seconds on a CPU: no rollout's deadline covers that.
            self._loop.call(self._complete([0], Sampling(max_tokens=1))).result()
            if initial:
                self.update_weights(Path(config.model), version)
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> int:
        """The weight version that the next token will be stamped with."""
        return self._version

    @property
    def stats(self) -> Mapping[str, float]:
        """Counters since the start, times in seconds.

        ``sequences`` ended well and ``failed`` did not; ``tokens`` were generated; ``requeued`` sequences started
        over. ``resyncs`` took ``resync_s``, and for ``pause_s`` of these nothing was generated. ``running`` counts the
        sequences of this moment, waiting ones included.
        """
        return {**self._stats, "running": float(self._running)}

    @property
    def error(self) -> EngineDiedError | None:
        """Set once the engine has died."""
        if self._error is None and not self._loop.closed and self._engine.errored:
            self._error = EngineDiedError("vLLM's engine died; read its last lines in this explorer's log")
        return self._error

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens``; see :meth:`rft.policy.base.Policy.generate`."""
        prompt = [int(token) for token in prompt_tokens]
        check_request(prompt, sampling, vocabulary=self._vocabulary, context=self._context)
        return await asyncio.wrap_future(self._loop.call(self._generate(prompt, sampling)))

    def update_weights(self, path: Path, version: int) -> None:
        """Use the weights in ``path`` from the next token on; see :meth:`rft.policy.base.Policy.update_weights`."""
        options = self._load_options(read_shapes(path), Adapter.from_folder(path))
        self._update({**options, "transport": "checkpoint", "folder": str(Path(path).absolute())}, version)

    @property
    def receivers(self) -> int:
        """Number of ranks that this policy needs in a collective transfer: one for each of the engine's workers."""
        return self._config.vllm.tensor_parallel

    def receive_weights(self, specs: Sequence[TransferSpec], version: int) -> None:
        """Take part in a collective transfer, with one specification a worker.

        See :meth:`rft.policy.base.Policy.receive_weights`. The tensors are received into the workers' host memory while
        generation goes on.
        """
        manifest = specs[0].manifest
        shapes = {tensor.name: tensor.shape for tensor in manifest.tensors}
        options = self._load_options(shapes, Adapter.from_metadata(manifest.metadata))
        self._update({**options, "transport": "collective", "specs": [spec.to_json() for spec in specs]}, version)

    def abort_transfer(self) -> None:
        """Abort ``receive_weights``, which runs in another thread. It raises soon, or has just succeeded."""
        if self.error is None:  # a dead engine receives nothing
            self._loop.call(self._engine.collective_rpc("drop_staged_weights")).result()

    def close(self) -> None:
        """End the engine. Unfinished requests fail with PolicyError."""
        self._loop.close(self._stop())

    async def _start(self) -> AsyncLLM:
        config = self._config.model_copy(update={"model": str(self._base_model.folder)})
        engine = start_engine(config, self._seed, lora_rank=self._lora_rank)
        try:
            await engine.update_weight_version(str(self._version))
        except BaseException:
            engine.shutdown(timeout=SHUTDOWN_S)
            raise
        return engine

    async def _stop(self) -> None:
        self._engine.shutdown(timeout=SHUTDOWN_S)

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Generation:
        self._running += 1
        try:
            while (output := await self._complete(prompt, sampling)) is None or output.finish_reason == "abort":
                self._stats["requeued"] += 1
                if self._unpaused.is_set():
                    # The engine refuses requests already, and is about to pause.
                    await asyncio.sleep(REFUSED_S)
                await self._unpaused.wait()
            generation = as_generation(output)
        except Exception as error:
            self._stats["failed"] += 1
            raise self._as_policy_error(error) from error
        finally:
            self._running -= 1
        self._stats["sequences"] += 1
        self._stats["tokens"] += len(generation.tokens)
        return generation

    async def _complete(self, prompt: list[int], sampling: Sampling) -> CompletionOutput | None:
        """Generate one sequence. Return None if adapters were loaded while it was generated without any."""
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=int(np.random.SeedSequence([self._seed, sampling.seed]).generate_state(1)[0]),
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            stop_token_ids=self._end_tokens,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            detokenize=bool(sampling.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        # New sequences must not use the prefixes that older weights cached. While sequences in flight still use these,
        # vLLM cannot drop them, so the version is part of their key.
        engine_input = tokens_input(prompt, cache_salt=str(self._version) if self._config.keep_kv else None)
        with_adapters = self._with_adapters
        outputs = self._engine.generate(
            engine_input,
            parameters,
            f"rft-{next(self._request_numbers)}",
            lora_request=lora_request() if with_adapters else None,
        )
        *_, final = [output async for output in outputs]
        return final.outputs[0] if with_adapters == self._with_adapters else None

    def _load_options(self, shapes: Mapping[str, tuple[int, ...]], adapter: Adapter | None) -> LoadOptions:
        """Return how the workers load weights of these ``shapes``. Raises PolicyError if the weights do not fit."""
        if adapter is None:
            if self._lora_rank:
                raise PolicyError(
                    "this engine was started for adapters, and a whole model came: set weights.content to the same "
                    "value for trainer and explorers, and policy.model to a whole model"
                )
            self._check_shapes(shapes)
            return {"adapter": None, "merge_into": None}
        if self._merge_adapters:
            self._base_model.check(shapes, adapter)
            return {"adapter": None, "merge_into": (str(self._base_model.folder.absolute()), adapter.scale)}
        if adapter.rank > self._lora_rank:
            raise PolicyError(
                f"adapters of rank {adapter.rank} came, and this engine was started for a rank of {self._lora_rank}: "
                "set weights.content and trainer.lora to the same values for trainer and explorers"
            )
        self._base_model.check(shapes, adapter)
        return {"adapter": adapter.peft_config().decode(), "merge_into": None}

    def _check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise PolicyError unless these are the shapes of our architecture's weights."""
        unknown = sorted(shapes.keys() - self._shapes.keys() - {TIED})
        if unknown:
            raise PolicyError(f"weights of another model: unknown tensor {unknown[0]} ({len(unknown)} in all)")
        missing = sorted(self._shapes.keys() - shapes.keys() - ({TIED} if self._tied else set()))
        if missing:
            raise PolicyError(f"incomplete weights: {missing[0]} is missing ({len(missing)} in all)")
        for name, shape in shapes.items():
            if name in self._shapes and shape != self._shapes[name]:
                raise PolicyError(f"weights of another model: {name} has shape {shape}, not {self._shapes[name]}")

    def _update(self, source: WeightSource, version: int) -> None:
        self._loop.call(self._stage_and_load(source, version)).result()

    async def _stage_and_load(self, source: WeightSource, version: int) -> None:
        """Fetch the weights, pause generation, load them, resume."""
        began = time.monotonic()
        config, adapters = self._config, source["adapter"] is not None
        async with self._updating:
            try:
                await stage(self._engine, source, version, timeout_s=config.vllm.stage_timeout_s)
                self._unpaused.clear()
                # Sequences that started without adapters cannot continue with them.
                async with paused(self._engine, config, requeue=adapters and not self._with_adapters) as pause_s:
                    await (load_adapters if adapters else load_model)(self._engine, version)
                    self._version, self._with_adapters = version, adapters
                self._stats["pause_s"] += pause_s()
            except EngineDiedError as error:
                self._error = error
                raise
            except WeightsError:
                raise
            except Exception as error:
                raise self._as_policy_error(error) from error
            finally:
                self._unpaused.set()
        self._stats["resyncs"] += 1
        self._stats["resync_s"] += time.monotonic() - began

    def _as_policy_error(self, error: Exception) -> PolicyError:
        if isinstance(error, PolicyError):
            return error
        return self.error or PolicyError(f"generation failed: {type(error).__name__}: {first_line(error)}")


async def _nothing() -> None:
    """Close a loop on which no engine runs."""


def as_generation(output: CompletionOutput) -> Generation:
    """Convert vLLM's output of one sequence. Raises PolicyError if the logits were not finite."""
    tokens = np.array(output.token_ids, dtype=np.int32)
    flat = output.logprobs
    logprobs = np.array(flat.logprobs, dtype=np.float32)[np.array(flat.start_indices, dtype=np.int64)]
    versions = np.concatenate(
        [np.full(span.end - span.start, int(span.version), np.int32) for span in output.weight_versions]
    )
    if not len(tokens) == len(logprobs) == len(versions):
        raise PolicyError(f"vLLM gave {len(tokens)} tokens, {len(logprobs)} logprobs and {len(versions)} versions")
    if not np.isfinite(logprobs).all():
        raise PolicyError(f"the model's logits are not finite at weight version {versions[-1]}")
    return Generation(tokens, logprobs, versions, finish_reason=output.finish_reason)
