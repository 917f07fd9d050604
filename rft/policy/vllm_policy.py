"""Text generation with vLLM: an engine in a child process, driven by an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rft.config import PolicyConfig
from rft.errors import EngineDiedError, PolicyError, WeightsError, first_line
from rft.policy.adapted import AdapterBase
from rft.policy.base import Generation, Sampling
from rft.policy.checks import check_request
from rft.policy.loading import end_tokens, generation_config, text_config
from rft.policy.loop_thread import LoopThread
from rft.policy.tensors import layout_of
from rft.policy.tokenized import Tokenized
from rft.policy.vllm_adapters import adapters_request
from rft.policy.vllm_start import runs_on_cpu, start_engine
from rft.policy.vllm_update import SHUTDOWN_S, paused, stage, take_adapters, take_model
from rft.weights.adapters import Adapter
from rft.weights.reception import Reception

REFUSED_S = 0.05
TIED = "lm_head.weight"
"""May be in a file or not, if it is the embedding."""

log = logging.getLogger("rft")


class VllmPolicy(Tokenized):
    """A :class:`rft.policy.base.Policy` over vLLM's continuous batching, with prefix caching.

    New weights are fetched while the engine generates; it pauses only while they are loaded. vLLM itself notes from
    which token on they wrote. When the engine dies, ``error`` says so, and everything fails with EngineDiedError.
    """

    def __init__(self, config: PolicyConfig, seed: int = 0, *, version: int = 0, lora_rank: int = 0) -> None:
        """Start an engine on ``config.model``, whose weights count as ``version``. Raises PolicyError.

        ``lora_rank``: weight versions will be adapters of up to this rank, and not whole models.
        """
        self._config = config
        self._seed = seed
        super().__init__(config.model)
        self._beneath = AdapterBase(config.model)
        self._end_tokens = sorted(end_tokens(generation_config(self._beneath.folder), self._tokenizer))
        own = Adapter.of_folder(config.model)
        merge = config.vllm.merge_adapters
        self._merges = runs_on_cpu(config) if merge is None else merge
        self._lora_rank = 0 if self._merges else max(lora_rank, own.rank if own else 0)
        self._adapted = False
        """Sequences are generated with adapters from now on."""
        self._layout = layout_of(self._beneath.folder)
        self._tied = bool(text_config(self._beneath.folder).tie_word_embeddings)
        self._version = version
        self._error: EngineDiedError | None = None
        self._numbers = itertools.count()
        self._running = 0
        self._stats = dict.fromkeys(
            ("sequences", "failed", "tokens", "requeued", "resync_s", "pause_s", "resyncs"), 0.0
        )
        self._updating = asyncio.Lock()
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._engine: Any = None
        self._loop = LoopThread()
        try:
            self._loop.call(self._start()).result()
            if own:
                self.update_weights(Path(config.model), version)
        except BaseException:
            self._loop.close(self._stop())
            raise
        engine: Any = self._engine  # set by _start
        model = engine.model_config
        self._context = int(model.max_model_len)
        self._vocabulary = int(model.get_vocab_size())

    @property
    def version(self) -> int:
        """Weight version that the next token will be stamped with."""
        return self._version

    @property
    def stats(self) -> Mapping[str, float]:
        """``sequences`` and ``failed`` ended, ``tokens`` written, sequences ``requeued``; ``resyncs``, the
        seconds they took (``resync_s``) and for how many of these nothing was generated (``pause_s``);
        ``running``: sequences that are being written or wait to be."""
        return {**self._stats, "running": float(self._running)}

    @property
    def error(self) -> EngineDiedError | None:
        """Set when the engine is gone."""
        if self._error is None and not self._loop.closed and self._engine.errored:
            self._error = EngineDiedError("vLLM's engine died; its last words are in this explorer's log")
        return self._error

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens``; see :meth:`rft.policy.base.Policy.generate`."""
        prompt = [int(token) for token in prompt_tokens]
        check_request(prompt, sampling, vocabulary=self._vocabulary, context=self._context)
        return await asyncio.wrap_future(self._loop.call(self._generate(prompt, sampling)))

    def update_weights(self, path: Path, version: int) -> None:
        """Use the weights in ``path`` from the next token on; see :meth:`rft.policy.base.Policy.update_weights`."""
        source = self._checked(layout_of(path), Adapter.of_folder(path))
        self._take(source | {"transport": "checkpoint", "folder": str(Path(path).absolute())}, version)

    @property
    def receivers(self) -> int:
        """Ranks that it needs in a collective transfer: one for each of the engine's workers."""
        return self._config.vllm.tensor_parallel

    def receive_weights(self, receptions: Sequence[Reception], version: int) -> None:
        """Take part in a collective transfer, one reception a worker, and use the weights from the next token on.

        The tensors come to the workers' host memory while generation goes on. Raises WeightsError when they do not
        come or are not what was announced, PolicyError when they do not fit; the old ones are kept then.
        """
        manifest = receptions[0].manifest
        shapes = {tensor.name: tensor.shape for tensor in manifest.tensors}
        source = self._checked(shapes, Adapter.of_metadata(manifest.metadata))
        told = [one.to_json() for one in receptions]
        self._take(source | {"transport": "collective", "receptions": told}, version)

    def abort_reception(self) -> None:
        """Break off ``receive_weights``, which another thread is in; it raises soon, or has just succeeded."""
        if self.error is None:  # an engine that is gone receives nothing
            self._loop.call(self._engine.collective_rpc("forget_weights")).result()

    def close(self) -> None:
        """End the engine; unfinished requests fail with PolicyError."""
        self._loop.close(self._stop())

    async def _start(self) -> None:
        config = self._config.model_copy(update={"model": str(self._beneath.folder)})
        self._engine = start_engine(config, self._seed, lora_rank=self._lora_rank)
        await self._engine.update_weight_version(str(self._version))
        # The first request prepares kernels, for as long as twenty seconds on a CPU: no rollout's deadline is for that.
        await self._complete([0], Sampling(max_tokens=1))

    async def _stop(self) -> None:
        if self._engine is not None:
            self._engine.shutdown(timeout=SHUTDOWN_S)

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Generation:
        self._running += 1
        try:
            while (output := await self._complete(prompt, sampling)) is None or output.finish_reason == "abort":
                self._stats["requeued"] += 1
                if self._unpaused.is_set():
                    # The engine takes nothing any more and is about to say so.
                    await asyncio.sleep(REFUSED_S)
                await self._unpaused.wait()
            generation = as_generation(output)
        except Exception as error:
            self._stats["failed"] += 1
            raise self._translated(error) from error
        finally:
            self._running -= 1
        self._stats["sequences"] += 1
        self._stats["tokens"] += len(generation.tokens)
        return generation

    async def _complete(self, prompt: list[int], sampling: Sampling) -> Any:
        """vLLM's CompletionOutput of one sequence; None if adapters came while it was written without any."""
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
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        # What older weights read is not for those who come later; vLLM cannot forget it while sequences still use it.
        engine_input = tokens_input(prompt, cache_salt=str(self._version) if self._config.keep_kv else None)
        adapted = self._adapted
        answers = self._engine.generate(
            engine_input,
            parameters,
            f"rft-{next(self._numbers)}",
            lora_request=adapters_request() if adapted else None,
        )
        *_, final = [answer async for answer in answers]
        return final.outputs[0] if adapted == self._adapted else None

    def _checked(self, layout: Mapping[str, tuple[int, ...]], adapter: Adapter | None) -> dict[str, Any]:
        """What a worker must know of weights whose tensors have these shapes. Raises PolicyError if they do not fit."""
        if adapter is None:
            if self._lora_rank:
                raise PolicyError(
                    "this engine was started for adapters, and a whole model came. Is weights.content the same for "
                    "trainer and explorers, and policy.model a whole model?"
                )
            self._check_layout(layout)
            return {"adapter": None, "onto": None}
        if self._merges:
            self._beneath.check(layout, adapter)
            return {"adapter": None, "onto": (str(self._beneath.folder.absolute()), adapter.scale)}
        if adapter.rank > self._lora_rank:
            raise PolicyError(
                f"adapters of rank {adapter.rank} came, and this engine was started for a rank of {self._lora_rank}: "
                "weights.content and trainer.lora must be the same for trainer and explorers"
            )
        self._beneath.check(layout, adapter)
        return {"adapter": adapter.peft_config().decode(), "onto": None}

    def _check_layout(self, layout: Mapping[str, tuple[int, ...]]) -> None:
        """Raise PolicyError unless these are weights of our architecture."""
        unknown = sorted(layout.keys() - self._layout.keys() - {TIED})
        if unknown:
            raise PolicyError(f"weights of another model: unknown tensor {unknown[0]} ({len(unknown)} in all)")
        missing = sorted(self._layout.keys() - layout.keys() - ({TIED} if self._tied else set()))
        if missing:
            raise PolicyError(f"incomplete weights: {missing[0]} is missing ({len(missing)} in all)")
        for name, shape in layout.items():
            if name in self._layout and shape != self._layout[name]:
                raise PolicyError(f"weights of another model: {name} has shape {shape}, not {self._layout[name]}")

    def _take(self, source: dict[str, Any], version: int) -> None:
        self._loop.call(self._update(source, version)).result()

    async def _update(self, source: dict[str, Any], version: int) -> None:
        """Fetch, pause, load, go on."""
        began = time.monotonic()
        config, adapters = self._config, source["adapter"] is not None
        async with self._updating:
            try:
                await stage(self._engine, source, version, timeout_s=config.vllm.stage_timeout_s)
                self._unpaused.clear()
                # Who was asked for without adapters cannot go on with them.
                async with paused(self._engine, config, requeue=adapters and not self._adapted) as pause_s:
                    await (take_adapters if adapters else take_model)(self._engine, version)
                    self._version, self._adapted = version, adapters
                self._stats["pause_s"] += pause_s()
            except EngineDiedError as error:
                self._error = error
                raise
            except WeightsError:
                raise
            except Exception as error:
                raise self._translated(error) from error
            finally:
                self._unpaused.set()
        self._stats["resyncs"] += 1
        self._stats["resync_s"] += time.monotonic() - began

    def _translated(self, error: Exception) -> PolicyError:
        if isinstance(error, PolicyError):
            return error
        return self.error or PolicyError(f"generation failed: {type(error).__name__}: {first_line(error)}")


def as_generation(output: Any) -> Generation:
    """From vLLM's CompletionOutput. Raises PolicyError if the logits were not finite."""
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
