"""Checks the LoRA targets of each trainer against the names of the model's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from infra.preflight.tensors import tensor_shapes
from rft.config import LoraConfig
from rft.errors import ConfigError
from rft.plugins import nearest

Shapes = Mapping[str, tuple[int, ...]]
_WEIGHT = ".weight"
_NOT_LINEAR = ("embed", "wte", "wpe")
"""Parts of the names of embeddings, whose weights have the shape of a linear layer's."""


def lora(facts: Facts) -> Iterator[Finding]:
    """Find targets that are no linear layers of the model."""
    for trainer in facts.trainers:
        if not trainer.trainer.lora.rank:
            continue
        if find_spec("peft") is None:
            raise ConfigError("trainer.lora needs PEFT: pip install 'stream-rft[lora]'")
        if facts.model_folder is not None and (shapes := tensor_shapes(facts.model_folder)):
            yield from check_targets(trainer.trainer.lora, shapes)


def check_targets(settings: LoraConfig, shapes: Shapes) -> Iterator[Finding]:
    """Check ``target_modules`` against the shapes of the model's tensors, by name. Raises ConfigError."""
    linear = sorted({_last(name) for name, shape in shapes.items() if _is_linear(name, shape)})
    targets = settings.target_modules
    if isinstance(targets, str):
        yield Finding("ok", f"LoRA of rank {settings.rank} on all linear layers")
        return
    for target in targets:
        named = {name: shape for name, shape in shapes.items() if _is_module(name, target)}
        if not named:
            near = nearest(target, linear)
            raise ConfigError(
                f"trainer.lora.target_modules: the model has no module {target!r}"
                f"{f' (did you mean {near!r}?)' if near else ''}; its linear layers are {', '.join(linear)}"
            )
        if not any(_is_linear(name, shape) for name, shape in named.items()):
            raise ConfigError(
                f"trainer.lora.target_modules: {target!r} is not a linear layer; the model's linear layers are "
                f"{', '.join(linear)}"
            )
        smallest = min(min(shape) for shape in named.values())
        if settings.rank > smallest:
            yield Finding(
                "warn",
                f"trainer.lora.rank = {settings.rank} is above the size of {target!r}, {smallest}",
                "such adapters are larger than the layer; lower the rank",
            )
    if not targets:
        raise ConfigError(
            "trainer.lora.target_modules is empty, so nothing would be trained: leave it out, or name some of "
            f"{', '.join(linear)}"
        )
    yield Finding("ok", f"LoRA of rank {settings.rank} on {', '.join(targets)}")


def _is_module(name: str, target: str) -> bool:
    """Return whether PEFT takes the tensor's module for ``target``: its name, or the end of it after a point."""
    module = name.removesuffix(_WEIGHT)
    return name.endswith(_WEIGHT) and (module == target or module.endswith(f".{target}"))


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(_WEIGHT) and len(shape) == 2 and not any(part in _last(name) for part in _NOT_LINEAR)


def _last(name: str) -> str:
    return name.removesuffix(_WEIGHT).rpartition(".")[2]
