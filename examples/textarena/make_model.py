"""Makes a model with random weights and a tokenizer for the game GuessTheNumber, in seconds.

The tokenizer keeps of an observation only the numbers and the words "higher" and "lower". Its chat template is minimal:
what the game says, and a guess.

    python examples/textarena/make_model.py runs/textarena-model
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

PAD, EOS, GAME, GUESS = "<pad>", "<eos>", "<game>", "<guess>"
WORDS = [*"1234567", "higher", "lower"]
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<guess>{{ message.content }}<eos>"
    "{% else %}<game>{{ message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<guess>{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token for each number and each hint, and the special tokens of the chat template."""
    specials = [PAD, EOS, GAME, GUESS]
    vocabulary = {token: number for number, token in enumerate([*specials, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    backend.normalizer = normalizers.Replace(Regex(r"(?!\b(?:higher|lower)\b)\b[A-Za-z]+|[^1-7A-Za-z]"), "")
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[1-7]|[a-z]+"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=EOS, chat_template=TEMPLATE)


def make_model(folder: Path, seed: int = 0) -> None:
    """Write config, tokenizer and random weights (about 0.3 million) to ``folder``, in Hugging Face layout."""
    logging.disable_progress_bar()
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=8,
            head_dim=16,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/textarena-model"))
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.seed)
    print(f"The model is in {arguments.folder}")


if __name__ == "__main__":
    main()
