"""``reward_model``: scores a response by a sequence classifier from a folder, many samples in a batch."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rft.config import RewarderConfig
from rft.errors import ConfigError, RewardError
from rft.rewards.functions import Sample
from rft.rewards.judgement import Judgement, Usage
from rft.rewards.reward_model_options import check_folder

GATHER_S = 0.02
"""How long a batch waits for more samples. The forward pass of one takes longer."""


class RewardModel:
    """A sequence classifier. Samples that are asked for at the same time share a forward pass."""

    overhead_s = 0.0

    def __init__(self, name: str, config: RewarderConfig) -> None:
        """Load the model. Raises ConfigError for wrong options and for a folder that holds no such model."""
        self._options = options = check_folder(name, config)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(options.folder, local_files_only=True)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(
                options.folder, local_files_only=True, use_safetensors=True, dtype=getattr(torch, options.dtype)
            )
            self._model.to(options.device).eval()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            cause = " ".join(str(error).split())[:500]
            raise ConfigError(f"rewarders.{name}.options.folder: {options.folder} cannot be loaded: {cause}") from error
        if options.label >= self._model.config.num_labels:
            outputs = self._model.config.num_labels
            raise ConfigError(f"rewarders.{name}.options.label = {options.label}: the model has {outputs} outputs")
        if options.text == "chat" and not self._tokenizer.chat_template:
            raise ConfigError(f"rewarders.{name}.options.text = 'chat': {options.folder} has no chat template")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.config.pad_token_id = self._tokenizer.pad_token_id
        self._tokenizer.truncation_side = "left"
        self._asked: list[tuple[Sample, asyncio.Future[float]]] = []
        self._batcher: asyncio.Task[None] | None = None
        self.usage = Usage()

    async def judge(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Score samples, together with those that others ask for now."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in samples]
        self._asked += zip(samples, futures, strict=True)
        if self._batcher is None or self._batcher.done():
            self._batcher = asyncio.create_task(self._score_batches())
        return [Judgement({"": value}) for value in await asyncio.gather(*futures)]

    async def close(self) -> None:
        """Stop after the present forward pass."""
        if self._batcher is not None:
            self._batcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._batcher

    async def _score_batches(self) -> None:
        await asyncio.sleep(GATHER_S)
        while self._asked:
            # A sample whose try ended meanwhile is asked for by nobody.
            asked = [one for one in self._asked if not one[1].done()]
            batch, self._asked = asked[: self._options.batch_size], asked[self._options.batch_size :]
            try:
                values = await asyncio.to_thread(self._scores, [sample for sample, _ in batch]) if batch else []
            except (RuntimeError, ValueError, IndexError) as error:  # out of memory, a text that the model cannot take
                for _, future in batch:
                    if not future.done():
                        future.set_exception(RewardError(f"the reward model failed: {error}"))
                continue
            for (_, future), value in zip(batch, values, strict=True):
                if not future.done():
                    future.set_result(value)

    @torch.inference_mode()
    def _scores(self, samples: Sequence[Sample]) -> list[float]:
        options, tokenize = self._options, self._tokenizer
        settings = {"padding": True, "truncation": True, "max_length": options.max_tokens, "return_tensors": "pt"}
        if options.text == "pair":
            inputs = tokenize([one.prompt for one in samples], [one.response for one in samples], **settings)
        elif options.text == "chat":
            # The template writes the special tokens.
            inputs = tokenize([self._chat(one) for one in samples], add_special_tokens=False, **settings)
        else:
            inputs = tokenize([one.prompt + one.response for one in samples], **settings)
        logits = self._model(**inputs.to(options.device)).logits[:, options.label].float()
        if options.activation == "sigmoid":
            logits = logits.sigmoid()
        values = [float(value) for value in logits.cpu()]
        if not all(map(math.isfinite, values)):
            raise ValueError("it gave a reward that is not finite")
        return values

    def _chat(self, sample: Sample) -> str:
        turns = [{"role": "user", "content": sample.prompt}, {"role": "assistant", "content": sample.response}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False))
