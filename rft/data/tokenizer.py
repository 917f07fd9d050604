"""The tokenizer of the policy's model, with the tokens by which it ends an answer."""

from __future__ import annotations

import json
from pathlib import Path

from rft.data.chat import Tokens
from rft.policy.loading import load_tokenizer
from rft.weights.adapters import base_model_folder

_NAMES = ("generation_config.json", "config.json")


def open_tokens(folder: Path) -> Tokens:
    """Of the model in ``folder``, as a policy uses it. Raises PolicyError when there is no tokenizer."""
    tokenizer = load_tokenizer(folder)
    ends = {tokenizer.eos_token_id}
    beneath = base_model_folder(folder)
    for name in _NAMES:
        if (beneath / name).is_file():
            named = json.loads((beneath / name).read_text("utf-8")).get("eos_token_id")
            ends |= set(named) if isinstance(named, list) else {named}
            break
    return Tokens(tokenizer, frozenset(int(token) for token in ends if token is not None))
