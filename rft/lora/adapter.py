"""Describes and checks weight versions that are LoRA adapters (arXiv:2106.09685) and not whole models.

Such a version is a file in PEFT's layout. For a layer's weight W [out, in] it holds A [rank, in] and B [out, rank],
which stand for W + alpha / rank · B A; W belongs to the base model, which its readers have. What else they need is in
the file's metadata, which every transport carries and the version's sha256 covers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from rft.errors import PolicyError, first_line
from rft.model_files.model_folder import ADAPTER_CONFIG, ADAPTER_FILE, holds_adapters, safetensors_files

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model."
"""Begins the names that PEFT gives to a model's layers."""
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_METADATA = "adapter"
_CHANGES_MEANING = ("use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save")
"""Settings of PEFT that give adapters another meaning than the formula above."""


Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors, by name."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Describes a file of adapters."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...] | str
    """Names of the layers that have adapters, in PEFT's form."""
    base_sha256: str = ""
    """:func:`base_digest` of the base model; empty in adapters from other programs."""

    @property
    def scale(self) -> float:
        """Factor of B A in the formula."""
        return self.alpha / self.rank

    def metadata(self) -> dict[str, str]:
        """Return it as metadata for the file's header."""
        return {_METADATA: json.dumps(asdict(self), sort_keys=True)}

    def peft_config(self, base: str = "") -> bytes:
        """Return the content of ``adapter_config.json``; ``base`` is the folder of the base model."""
        settings = {
            "base_model_name_or_path": base,
            "bias": "none",
            "inference_mode": True,
            "lora_alpha": self.alpha,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": self.target_modules,
            "task_type": "CAUSAL_LM",
        }
        return json.dumps(settings, indent=2).encode()

    def companions(self, companions: Mapping[str, bytes], base: str = "") -> dict[str, bytes]:
        """Return the files, by name, that belong to these adapters in a folder.

        ``companions`` are those of the base model, ``base`` is its folder.
        """
        return adapter_companions(companions) | {ADAPTER_CONFIG: self.peft_config(base)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Adapter | None:
        """Read it from a safetensors file's metadata; None if the file holds a model. Raises PolicyError."""
        text = metadata.get(_METADATA)
        if text is None:
            return None
        try:
            values = json.loads(text)
            modules = values["target_modules"]
            return cls(**values | {"target_modules": modules if isinstance(modules, str) else tuple(modules)})
        except (ValueError, TypeError, KeyError) as error:
            raise PolicyError(f"the metadata of these adapters is damaged: {error}") from error

    @classmethod
    def from_folder(cls, folder: Path | str) -> Adapter | None:
        """Read it from a folder that a trainer or PEFT has written; None if it holds a model. Raises PolicyError."""
        if not holds_adapters(folder):
            return None
        file = Path(folder) / ADAPTER_FILE
        try:
            with safe_open(file, framework="np") as opened:
                own = cls.from_metadata(opened.metadata() or {})
        except (OSError, SafetensorError) as error:
            raise PolicyError(f"cannot read the adapters in {file}: {first_line(error)}") from error
        return own or cls._from_peft(peft_settings(folder), file)

    @classmethod
    def _from_peft(cls, settings: Mapping[str, Any], file: Path) -> Adapter:
        other = [name for name in _CHANGES_MEANING if settings.get(name)]
        if settings.get("peft_type") != "LORA" or other:
            raise PolicyError(
                f"{file}: {', '.join(other) or settings.get('peft_type')} is not supported. Use plain LoRA adapters"
            )
        modules = settings.get("target_modules") or ()
        return cls(
            int(settings["r"]), float(settings["lora_alpha"]), modules if isinstance(modules, str) else tuple(modules)
        )


def adapter_companions(companions: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the ``companions`` without ``config.json``, which would make transformers expect a whole model."""
    return {name: content for name, content in companions.items() if name != "config.json"}


def peft_settings(folder: Path | str) -> dict[str, Any]:
    """Read the folder's ``adapter_config.json``. Raises PolicyError."""
    try:
        settings: dict[str, Any] = json.loads((Path(folder) / ADAPTER_CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise PolicyError(f"cannot read {Path(folder) / ADAPTER_CONFIG}: {error}") from error
    return settings


def base_model_folder(folder: Path | str) -> Path:
    """Return the folder of the base model of the adapters in ``folder``; ``folder`` itself if it holds a model.

    Raises PolicyError when the base model does not exist.
    """
    if not holds_adapters(folder):
        return Path(folder)
    named = str(peft_settings(folder).get("base_model_name_or_path") or "")
    if not named or not Path(named).is_dir():
        raise PolicyError(
            f"{folder} holds adapters of the model '{named}', which is not a folder here. Put it there, or set "
            f"base_model_name_or_path in {ADAPTER_CONFIG}"
        )
    return Path(named)


def base_digest(folder: Path | str) -> str:
    """Return the sha256 over a model folder's safetensors files, by name, to compare the base models of two hosts."""
    digest = hashlib.sha256()
    for path in safetensors_files(folder):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def check_adapters(shapes: Shapes, adapter: Adapter, base: Shapes) -> None:
    """Raise PolicyError unless tensors of these ``shapes`` are adapters of a model of the shapes ``base``."""
    expected: dict[str, tuple[int, ...]] = {}
    for weight, down, up in _layers(shapes):
        if weight not in base:
            raise PolicyError(f"adapters of another model: there is no {weight} here")
        if len(base[weight]) == 2:
            expected |= {down: (adapter.rank, base[weight][1]), up: (base[weight][0], adapter.rank)}
    for name in sorted(shapes.keys() | expected.keys()):
        if shapes.get(name) != expected.get(name):
            raise PolicyError(
                f"adapters of another model: {name} has shape {shapes.get(name)}, expected was {expected.get(name)}"
            )


def merge_adapters(base: Mapping[str, Tensor], adapters: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return a whole model's tensors: those of ``base`` with the adapters merged into them in float32."""
    result = dict(base)
    for weight, down, up in _layers(adapters):
        a, b = (adapters[name].to(base[weight].device).float() for name in (down, up))
        result[weight] = add_low_rank(base[weight].float(), a, b, scale)
    return result


def add_low_rank(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """Return ``weight`` [out, in] + ``scale`` · ``up`` [out, rank] ``down`` [rank, in]."""
    return weight + scale * (up @ down)


def _layers(names: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the names of (weight, its A, its B) for each layer that has adapters."""
    for down in names:
        if down.endswith(_DOWN):
            stem = down.removesuffix(_DOWN)
            yield stem.removeprefix(PREFIX) + ".weight", down, stem + _UP
