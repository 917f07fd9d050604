"""Reads which tensors a model's files hold, from the headers of the files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft.errors import PolicyError

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100 * 2**20
"""The limit of safetensors itself."""
_LFS = b"version https://git-lfs"


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors by name. Raises PolicyError if a file is missing, cut short or none."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder):
        header = read_header(file)
        shapes |= {name: tuple(one["shape"]) for name, one in header.items()}
    return shapes


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model. Raises PolicyError if one that the index names is missing."""
    index = folder / INDEX
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise PolicyError(f"{index} cannot be read: {error}; copy the model again") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise PolicyError(
            f"the model folder {folder.absolute()} has no {missing[0]} ({len(missing)} of {len(names)} files of "
            "weights are missing): copy the model again"
        )
    return [folder / name for name in names]


def read_header(file: Path) -> Mapping[str, Any]:
    """Return the entry of each tensor in a safetensors file. Raises PolicyError if it is none, or cut short."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(len(_LFS))
            if start == _LFS:
                raise PolicyError(f"{file} is only a pointer of Git LFS: run `git lfs pull` in its folder")
            length = int.from_bytes(start[:8], "little")
            if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise PolicyError(f"{file} is not a safetensors file, or is cut short: copy the model again")
            opened.seek(8)
            header = json.loads(opened.read(length))
        tensors = {name: one for name, one in header.items() if name != "__metadata__"}
        end = 8 + length + max((one["data_offsets"][1] for one in tensors.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{file} cannot be read as safetensors: {error}; copy the model again") from error
    if size < end:
        raise PolicyError(f"{file} is cut short: it has {size:,} of {end:,} bytes; copy the model again")
    return tensors
