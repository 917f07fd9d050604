"""A random Qwen3 of a few thousand parameters with a character tokenizer, and helpers of policy tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rft.config import LoraConfig
from rft.lora.adapter import Adapter, base_digest
from rft.lora.peft_layers import adapter_weights_file, add_adapters
from rft.model_files.model_folder import ADAPTER_FILE, companion_files, write_folder
from rft.policy.base import Generation, Policy, Sampling
from rft.policy.loading import load_model
from rft.weights.sender import Sender
from rft.weights.transfer_spec import TransferSpec
from tests.rft.weights.receivers import describe, transfer_spec

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
    """Save a random model. Without ``ends`` it has no end-of-sequence token.

    vLLM on CPUs needs a head_dim of at least 32.
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


def make_adapters(base: Path, folder: Path, seed: int, *, rank: int = 3) -> Path:
    """A version of random adapters of the model in ``base``, written as a trainer does; they change much."""
    torch.manual_seed(seed)
    model = add_adapters(load_model(base, device="cpu"), LoraConfig(rank=rank, alpha=2 * rank))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    weights = adapter_weights_file(dict(model.named_parameters()), model, base_digest(base))
    adapter = Adapter.from_metadata(weights.metadata)
    assert adapter is not None
    write_folder(
        folder, adapter.companions(companion_files(base), str(base)) | {ADAPTER_FILE: weights.data}, "adapters"
    )
    return folder


def by_peft(base: Path, folder: Path) -> Any:
    """Return the model with the adapters in ``folder``, put together by PEFT itself."""
    return peft.PeftModel.from_pretrained(load_model(base, device="cpu"), folder).eval()


def send_to(policy: Policy, sender: Sender, weights: bytes, epoch: int, version: int) -> TransferSpec:
    """Send ``weights`` by a collective to ``policy``, which has one receiver. Return the receiver's specification."""
    manifest = describe(weights)
    limits = {"deadline_s": 30.0, "stall_s": 20.0}
    spec = transfer_spec(sender, manifest, epoch, "explorer", **limits)
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(sender.send, weights, manifest, epoch=epoch, receivers=[spec.receiver], **limits)
        policy.receive_weights([spec], version)
        assert sent.result().reached == {spec.receiver}
    return spec


async def generate_during_update(
    policy: Policy, calls: int, tokens: int, new_weights: Path, version: int
) -> list[Generation]:
    """Generate ``calls`` sequences of ``tokens`` tokens, and update the weights meanwhile."""
    prompt = policy.encode("tree>")
    running = [asyncio.create_task(policy.generate(prompt, Sampling(tokens, seed=seed))) for seed in range(calls)]
    await asyncio.sleep(0.3)
    assert not any(call.done() for call in running)
    await asyncio.to_thread(policy.update_weights, new_weights, version)
    return await asyncio.gather(*running)


def generate_all(policy: Policy, requests: Sequence[tuple[Sequence[int], Sampling]]) -> list[Any]:
    """Request all generations at once, and return them; an error takes the place of its result."""

    async def gather() -> list[Any]:
        calls = (policy.generate(prompt, sampling) for prompt, sampling in requests)
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(gather())


def reference_logprobs(
    model: Any, prompt: Sequence[int], generation: Generation, temperature: float = 1.0, top_p: float = 1.0
) -> np.ndarray:
    """Compute the generated tokens' log-probabilities in one full forward pass over the unpadded sequence."""
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
    """Return when the condition holds. Fail the test if it does not hold within a minute."""
    deadline = asyncio.get_running_loop().time() + 60
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not hold within a minute"
        await asyncio.sleep(0.001)
