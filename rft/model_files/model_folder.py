"""Names, reads and writes the files of a model folder in Hugging Face layout.

A folder holds a whole model or LoRA adapters in PEFT's two files, and configuration and tokenizer files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rft.errors import WeightsError
from rft.model_files.atomic_folder import describe_write_failure, write_files

WEIGHTS_FILE = "model.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's names: ``AutoModelForCausalLM.from_pretrained`` loads a folder with both if PEFT is installed."""
MAX_COMPANION_BYTES = 64 * 1024 * 1024
"""A larger file is neither configuration nor tokenizer, so it is not copied along."""
_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}


def is_model_folder(folder: Path | str) -> bool:
    """Return whether ``folder`` holds the configuration of a model or of adapters."""
    return any((Path(folder) / name).is_file() for name in ("config.json", ADAPTER_CONFIG))


def holds_adapters(folder: Path | str) -> bool:
    """Return whether the weights in ``folder`` are adapters and not a whole model."""
    return (Path(folder) / ADAPTER_FILE).is_file()


def weights_path(folder: Path) -> Path:
    """Return the path of the weights in ``folder``: the adapters' file if there is one, else the model's."""
    return folder / (ADAPTER_FILE if holds_adapters(folder) else WEIGHTS_FILE)


def safetensors_files(folder: Path | str) -> list[Path]:
    """Return the files that hold the weights in ``folder``, by name, as transformers would choose them.

    These are the adapters, or the whole model, or the shards that an index names; in a folder with other names, all
    safetensors files. A folder from the hub may hold the same weights again under another name.
    """
    root = Path(folder)
    for name in (ADAPTER_FILE, WEIGHTS_FILE):
        if (root / name).is_file():
            return [root / name]
    try:
        names = set(json.loads((root / f"{WEIGHTS_FILE}.index.json").read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return sorted(root.glob("*.safetensors"))
    return sorted(root / str(name) for name in names)


def companion_files(folder: Path) -> dict[str, bytes]:
    """Read the configuration and tokenizer files of a model folder, by name; ``config.json`` names float32 weights.

    Raises WeightsError when they cannot be read.
    """
    try:
        files = {
            path.name: path.read_bytes()
            for path in sorted(folder.iterdir())
            if path.is_file()
            and path.suffix not in _WEIGHT_SUFFIXES
            # With merged weights it would make transformers look for an adapter.
            and path.name != ADAPTER_CONFIG
            and not path.name.endswith(".index.json")
            and path.stat().st_size <= MAX_COMPANION_BYTES
        }
        description = json.loads(files["config.json"])
    except (OSError, KeyError, ValueError) as error:
        raise WeightsError(f"cannot read the model's files in {folder}: {error}") from error
    description.pop("torch_dtype", None)
    files["config.json"] = json.dumps(description | {"dtype": "float32"}, indent=2).encode()
    return files


def write_folder(folder: Path, files: Mapping[str, bytes | memoryview], what: str) -> None:
    """Write ``files`` as ``folder``, whole or not at all; ``what`` names it in errors.

    Raises WeightsError, naming the disk, when it cannot be written.
    """
    try:
        write_files(folder, files, durable=False)
    except OSError as error:
        raise WeightsError(
            f"cannot write {what} to {folder}: {describe_write_failure(error, folder, files)}"
        ) from error
