"""Makes small character-level models, which learn in seconds on a CPU: for examples, templates and tests.

Such a model is a Qwen3 with 2 layers of width 128 (about 0.34 million parameters) in Hugging Face layout, and a
tokenizer with one token for each character.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

PAD, END = "<pad>", "<end>"
IGNORED = -100
"""Label of a token that does not enter the loss, by PyTorch's convention."""
LEARNING_RATE = 3e-3
WARMUP_STEPS = 20
Parts = Sequence[tuple[str, bool]]
"""A text in parts, each with whether the model writes it. What others write is not learned."""


def make_tokenizer(
    characters: str, *, marks: Sequence[str] = (), chat_template: str | None = None, end: str = END
) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each of ``characters`` and for each mark.

    Args:
        characters: What texts may consist of. Other characters become ``<pad>``.
        marks: Texts such as ``<user>`` that are one token each, for a chat template.
        chat_template: In Jinja, as transformers uses it.
        end: The token that ends an answer.
    """
    special = [PAD, end, *marks]
    vocabulary = {token: number for number, token in enumerate([*special, *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=end, chat_template=chat_template)


def new_model(tokenizer: PreTrainedTokenizerFast, *, context: int = 64, seed: int = 0) -> Qwen3ForCausalLM:
    """Return a model with random weights. ``context`` is the most tokens of prompt and answer together."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=16,
            num_key_value_heads=16,
            head_dim=8,
            max_position_embeddings=context,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def save_model(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write configuration, weights and tokenizer to ``folder``."""
    logging.disable_progress_bar()
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def imitate(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    examples: Iterable[Parts],
    *,
    enough: float,
    max_steps: int = 300,
    batch: int = 64,
    probes: int = 256,
    probe_every: int = 2,
    report: Callable[[int, float], None] = lambda step, share: None,
) -> tuple[int, float]:
    """Take supervised steps on ``examples`` until a share ``enough`` of the probes is written exactly right.

    The first ``probes`` examples are probes and are not learned. The others are, ``batch`` a step. Reinforcement needs
    a policy that is right now and then, so stop early: at about 0.3.

    ``report`` is called with the number of steps and the share, every ``probe_every`` steps.
    Returns both. It ends early when there are no more examples.
    """
    torch.set_num_threads(1)
    remaining = iter(examples)
    tokens, labels = make_batch([parts for _, parts in zip(range(probes), remaining, strict=False)], tokenizer)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    step, share = 0, 0.0
    for step in range(1, max_steps + 1):
        shown = [parts for _, parts in zip(range(batch), remaining, strict=False)]
        if not shown:
            return step - 1, share
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / WARMUP_STEPS)
        inputs, targets = make_batch(shown, tokenizer)
        loss = model(input_ids=inputs, labels=targets, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % probe_every == 0:
            share = written_right(model, tokens, labels)
            report(step, share)
            if share >= enough:
                break
    return step, share


def make_batch(examples: Sequence[Parts], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Return token ids, right-padded, and labels that ignore what the model does not write; both int64 [B, T]."""
    rows, targets = [], []
    for parts in examples:
        encoded = [(tokenizer.encode(text), learned) for text, learned in parts]
        rows.append(torch.tensor([token for tokens, _ in encoded for token in tokens]))
        targets.append(torch.tensor([token if learned else IGNORED for tokens, learned in encoded for token in tokens]))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(rows, batch_first=True, padding_value=int(tokenizer.pad_token_id)),
        pad(targets, batch_first=True, padding_value=IGNORED),
    )


@torch.no_grad()
def written_right(model: Qwen3ForCausalLM, tokens: Tensor, labels: Tensor) -> float:
    """Return the share of rows that greedy decoding would write exactly as labeled."""
    predicted = model(input_ids=tokens, use_cache=False).logits[:, :-1].argmax(dim=-1)
    right = (predicted == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
    return float(right.all(dim=-1).float().mean())
