"""A model that calls a tool after what a user says, and answers after what a tool says.

It is trained for that in seconds: the template ends a prompt by another character after a tool's answer, and a call and
an answer are one token each.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen3ForCausalLM

from tests.producers.chat_model import START, byte_tokenizer, chat_config

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'
ANSWER = "The sum is 5."
TEMPLATE = """{%- if tools %}<|im_start|>system:
{{ tools | tojson }}<|im_end|>
{% endif %}{%- for message in messages %}<|im_start|>{{ message.role }}
{%- if message.role != 'assistant' %}:
{%- elif loop.previtem.role == 'tool' %}!{% else %}={% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>
{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant{{ '!' if messages[-1].role == 'tool' else '=' }}
{%- endif %}"""
STEPS = 150
LENGTH = 24


def make_calling_model(folder: Path) -> Path:
    """Train and save the model."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([CALL, ANSWER])
    tokenizer.chat_template = TEMPLATE
    model = Qwen3ForCausalLM(chat_config(tokenizer))
    call, answer, end = (tokenizer.convert_tokens_to_ids(token) for token in (CALL, ANSWER, tokenizer.eos_token))
    pairs = torch.tensor([[*tokenizer.encode("="), call, end], [*tokenizer.encode("!"), answer, end]])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        noise = torch.randint(1, len(tokenizer), (16, LENGTH))
        tokens = torch.cat([noise, pairs.repeat(8, 1)], dim=1)
        labels = torch.cat([torch.full_like(noise, -100), pairs.repeat(8, 1)], dim=1)
        labels[:, LENGTH] = -100
        loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert START in tokenizer.get_vocab()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
