"""A random Qwen3 that reads and writes bytes, with a chat template, and a check of what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rft.policy.loading import load_model
from rft.workflows.trajectory import Trajectory

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
CONTEXT = 32768
TEMPLATE = """{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_chat_model(folder: Path, seed: int = 0) -> Path:
    """Save a random model. It ends a turn after a few bytes, often enough."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    Qwen3ForCausalLM(chat_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chat_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate([PAD, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=END)
    tokenizer.add_special_tokens({"additional_special_tokens": [START]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def check_logprobs(model: Path, rows: Sequence[Trajectory], *, within: float = 1e-3) -> None:
    """Assert that the log-probabilities of each row are those of one forward pass over all of it."""
    network = load_model(model, device="cpu")
    for row in rows:
        tokens = torch.tensor(row.tokens, dtype=torch.int64)[None]
        with torch.no_grad():
            logits = network(input_ids=tokens, use_cache=False).logits[0, :-1]
        expected = torch.log_softmax(logits.float(), -1).gather(-1, tokens[0, 1:, None]).squeeze(-1).numpy()
        written = row.action_mask[1:] == 1
        assert written.any()
        assert row.action_mask[0] == 0
        np.testing.assert_allclose(row.logprobs[1:][written], expected[written], atol=within, rtol=0)
