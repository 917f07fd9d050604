"""Makes tiny models that chat: a tokenizer of bytes, the chat template of a real family, random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TEMPLATES = Path(__file__).parent / "fixtures" / "chat_templates"
CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Family:
    """What distinguishes the tokenizers of a family of models."""

    end: str
    specials: tuple[str, ...]
    first: str | None = None
    """Its first token (BOS), which the template spells and which the tokenizer adds to each text, too."""
    plain: tuple[str, ...] = ()
    """Added tokens that count as text."""
    system: bool = True
    tools: bool = False


FAMILIES = {
    "qwen3": Family(
        "<|im_end|>",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        plain=("<think>", "</think>", "<tool_call>", "</tool_call>"),
        tools=True,
    ),
    "llama3": Family(
        "<|eot_id|>",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        first="<|begin_of_text|>",
    ),
    "gemma": Family(
        "<end_of_turn>", ("<pad>", "<bos>", "<start_of_turn>", "<end_of_turn>"), first="<bos>", system=False
    ),
    "smollm2": Family("<|im_end|>", ("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
}


def chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes with the special tokens and the template of a family."""
    family = FAMILIES[name]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: index for index, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(family.specials))
    tokenizer.add_tokens(list(family.plain))
    if family.first:
        number = tokenizer.token_to_id(family.first)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.first} $A", special_tokens=[(family.first, number)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.first,
        eos_token=family.end,
        pad_token=family.specials[0],
        chat_template=(TEMPLATES / f"{name}.jinja").read_text().removesuffix("\n"),
    )


def make_chat_model(folder: Path, name: str, *, seed: int = 0, context: int = CONTEXT) -> Path:
    """Save a random model that chats as a family does."""
    tokenizer = chat_tokenizer(name)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
