"""A random Qwen3 of a few thousand parameters with a character tokenizer, and what tests do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rft.policy.base import Generation, Policy, Sampling

CHARACTERS = "abcdefghijklmnopqrstuvwxyz>"
CONTEXT = 2048
EOS = 1


def _tokenizer(ends: bool) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>" if ends else None)


def make_model(folder: Path, seed: int, *, ends: bool = True, head_dim: int = 8) -> Path:
    """Save a random model; one that does not end knows no end-of-sequence token.

    vLLM on CPUs wants a head_dim of at least 32.
    """
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(CHARACTERS) + 2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=EOS if ends else None,
        pad_token_id=0,
        initializer_range=0.3,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    _tokenizer(ends).save_pretrained(folder)
    return folder


def generate_all(policy: Policy, requests: Sequence[tuple[Sequence[int], Sampling]]) -> list[Any]:
    """Generations, all requested at once; an error comes back in the place of its result."""

    async def gather() -> list[Any]:
        calls = (policy.generate(prompt, sampling) for prompt, sampling in requests)
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(gather())


def reference_logprobs(
    model: Any, prompt: Sequence[int], generation: Generation, temperature: float = 1.0, top_p: float = 1.0
) -> np.ndarray:
    """Log-probabilities of the generated tokens by one full forward pass over the unpadded sequence."""
    tokens = torch.tensor([[*prompt, *generation.tokens.tolist()]])
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    if top_p < 1:
        ordered, order = logprobs.sort(dim=-1, descending=True)
        outside = ordered.exp().cumsum(-1) - ordered.exp() >= top_p
        logprobs = torch.log_softmax(logprobs.masked_fill(outside.scatter(-1, order, outside), -torch.inf), dim=-1)
    return logprobs.gather(-1, tokens[0, len(prompt) :, None]).squeeze(-1).numpy()


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fail the test when it does not within a minute."""
    deadline = asyncio.get_running_loop().time() + 60
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited a minute in vain"
        await asyncio.sleep(0.001)
