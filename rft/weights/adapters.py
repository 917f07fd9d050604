"""Weight versions that are LoRA adapters (arXiv:2106.09685) and not whole models.

Such a version is PEFT's file: for a layer's weight W [out, in] it holds A [rank, in] and B [out, rank], and stands for
W + alpha / rank · B A, of the model beneath that its readers have already. What else they must know is in the file's
metadata, which every transport carries along and the version's sha256 covers.
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

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's names: ``AutoModelForCausalLM.from_pretrained`` loads a folder with both if PEFT is installed."""
PREFIX = "base_model.model."
"""Begins the names that PEFT gives to a model's layers."""
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_METADATA = "adapter"
_CHANGES_MEANING = ("use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save")
"""Settings of PEFT with which adapters stand for something else than the formula above."""


Shapes = Mapping[str, tuple[int, ...]]
"""Of tensors, by name."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a file of adapters says of itself."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...] | str
    """Names of the layers that have adapters, as PEFT takes them."""
    base_sha256: str = ""
    """:func:`base_digest` of the model beneath; empty in adapters that others have written."""

    @property
    def scale(self) -> float:
        """Of B A."""
        return self.alpha / self.rank

    def metadata(self) -> dict[str, str]:
        """For the header of the file."""
        return {_METADATA: json.dumps(asdict(self), sort_keys=True)}

    def peft_config(self, base: str = "") -> bytes:
        """``adapter_config.json``; ``base`` is the folder of the model beneath."""
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

    def beside(self, companions: Mapping[str, bytes], base: str = "") -> dict[str, bytes]:
        """A model's other files as they lie beside these adapters; ``base`` is the folder of the model beneath."""
        return beside_adapters(companions) | {ADAPTER_CONFIG: self.peft_config(base)}

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str]) -> Adapter | None:
        """From a safetensors file's metadata; None when it holds a model. Raises PolicyError."""
        text = metadata.get(_METADATA)
        if text is None:
            return None
        try:
            values = json.loads(text)
            modules = values["target_modules"]
            return cls(**values | {"target_modules": modules if isinstance(modules, str) else tuple(modules)})
        except (ValueError, TypeError, KeyError) as error:
            raise PolicyError(f"these adapters do not say what they are: {error}") from error

    @classmethod
    def of_folder(cls, folder: Path | str) -> Adapter | None:
        """Of adapters that we or PEFT have written; None when the folder holds a model. Raises PolicyError."""
        if not holds_adapters(folder):
            return None
        file = Path(folder) / ADAPTER_FILE
        try:
            with safe_open(file, framework="np") as opened:
                own = cls.of_metadata(opened.metadata() or {})
        except (OSError, SafetensorError) as error:
            raise PolicyError(f"cannot read the adapters in {file}: {first_line(error)}") from error
        return own or cls._of_peft(peft_settings(folder), file)

    @classmethod
    def _of_peft(cls, settings: Mapping[str, Any], file: Path) -> Adapter:
        other = [name for name in _CHANGES_MEANING if settings.get(name)]
        if settings.get("peft_type") != "LORA" or other:
            raise PolicyError(f"{file}: {', '.join(other) or settings.get('peft_type')} is not supported, only LoRA is")
        modules = settings.get("target_modules") or ()
        return cls(
            int(settings["r"]), float(settings["lora_alpha"]), modules if isinstance(modules, str) else tuple(modules)
        )


def beside_adapters(companions: Mapping[str, bytes]) -> dict[str, bytes]:
    """Of a model's other files those that may lie beside adapters: with ``config.json`` transformers takes the folder
    for a whole model."""
    return {name: content for name, content in companions.items() if name != "config.json"}


def peft_settings(folder: Path | str) -> dict[str, Any]:
    """The folder's ``adapter_config.json``. Raises PolicyError."""
    try:
        settings: dict[str, Any] = json.loads((Path(folder) / ADAPTER_CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise PolicyError(f"cannot read {Path(folder) / ADAPTER_CONFIG}: {error}") from error
    return settings


def is_described(folder: Path | str) -> bool:
    """Whether the folder says what its weights are: a model's, or adapters'."""
    return any((Path(folder) / name).is_file() for name in ("config.json", ADAPTER_CONFIG))


def holds_adapters(folder: Path | str) -> bool:
    """Whether the weights in the folder are adapters, and not a model."""
    return (Path(folder) / ADAPTER_FILE).is_file()


def base_model_folder(folder: Path | str) -> Path:
    """The folder of the model beneath the adapters in ``folder``; that itself when it holds a model.

    Raises PolicyError when the model beneath is not there.
    """
    if not holds_adapters(folder):
        return Path(folder)
    named = str(peft_settings(folder).get("base_model_name_or_path") or "")
    if not named or not Path(named).is_dir():
        raise PolicyError(
            f"{folder} holds adapters of the model '{named}', which is no folder here: put it there, or set "
            f"base_model_name_or_path in {ADAPTER_CONFIG}"
        )
    return Path(named)


def base_digest(folder: Path | str) -> str:
    """sha256 over a model folder's safetensors files, by name: whether two hosts have the same model beneath."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
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


def applied(base: Mapping[str, Tensor], adapters: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A whole model's tensors: those of ``base`` with the adapters added in, in float32."""
    result = dict(base)
    for weight, down, up in _layers(adapters):
        a, b = (adapters[name].to(base[weight].device).float() for name in (down, up))
        result[weight] = added(base[weight].float(), a, b, scale)
    return result


def added(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """``weight`` [out, in] + ``scale`` · ``up`` [out, rank] ``down`` [rank, in]."""
    return weight + scale * (up @ down)


def _layers(names: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(weight, its A, its B) by name, for each layer that has adapters."""
    for down in names:
        if down.endswith(_DOWN):
            stem = down.removesuffix(_DOWN)
            yield stem.removeprefix(PREFIX) + ".weight", down, stem + _UP
