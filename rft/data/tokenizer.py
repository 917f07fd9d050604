"""Opens the tokenizer of the policy's model, with the tokens that end an answer."""

from __future__ import annotations

import json
from pathlib import Path

from rft.config import PolicyConfig
from rft.data.chat import Tokens
from rft.lora.adapter import base_model_folder
from rft.policy.loading import load_tokenizer

_CONFIG_FILES = ("generation_config.json", "config.json")
"""The first that exists names the end tokens."""


def open_tokens(config: PolicyConfig) -> Tokens:
    """Return the tokenizer of ``policy.model``, as a policy uses it. Raises PolicyError if there is none."""
    folder = Path(config.model)
    tokenizer = load_tokenizer(folder)
    ends = {tokenizer.eos_token_id}
    base = base_model_folder(folder)
    for name in _CONFIG_FILES:
        if (base / name).is_file():
            named = json.loads((base / name).read_text("utf-8")).get("eos_token_id")
            ends |= set(named) if isinstance(named, list) else {named}
            break
    return Tokens(
        tokenizer,
        frozenset(int(token) for token in ends if token is not None),
        config.template_options,
        _context(base / "config.json"),
    )


def _context(path: Path) -> int | None:
    """Return the model's context; None if its configuration does not say."""
    try:
        shape = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    size = shape.get("max_position_embeddings", (shape.get("text_config") or {}).get("max_position_embeddings"))
    return size if isinstance(size, int) and size > 0 else None
