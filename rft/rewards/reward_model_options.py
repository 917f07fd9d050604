"""Defines the options of ``function = "reward_model"``, without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rft.config import RewarderConfig
from rft.config.section import Section
from rft.errors import ConfigError
from rft.rewards.options import read_options


class RewardModelOptions(Section):
    folder: Path
    """Folder of the model in Hugging Face's layout, its weights as safetensors. Nothing is downloaded, and no code of
    the folder is run."""
    text: Literal["chat", "pair", "plain"] = "plain"
    """What the model reads. ``chat``: prompt and response as turns of its chat template. ``pair``: as two sequences.
    ``plain``: one after the other."""
    label: int = Field(default=0, ge=0)
    """Which of its outputs is the reward."""
    activation: Literal["none", "sigmoid"] = "none"
    """``sigmoid`` maps the output to 0 .. 1."""
    max_tokens: int = Field(default=4096, ge=8)
    """Of a longer text the beginning is left out: the response is at the end."""
    batch_size: int = Field(default=16, ge=1)
    """Samples of one forward pass. Set ``concurrency`` at least as high."""
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


def check_folder(name: str, config: RewarderConfig) -> RewardModelOptions:
    """Return the options. Raises ConfigError if one is wrong, or if the folder holds no weights as safetensors."""
    options = read_options(name, config, RewardModelOptions)
    where = f"rewarders.{name}.options.folder: {options.folder}"
    if not (options.folder / "config.json").is_file():
        raise ConfigError(f"{where} holds no model: it has no config.json")
    if not any(options.folder.glob("*.safetensors")):
        raise ConfigError(f"{where} holds no *.safetensors. Convert the weights: other formats may run code")
    return options
