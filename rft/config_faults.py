"""Explains a fault of a configuration: the key, where it was written, what was found and what is allowed. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_core import ErrorDetails

from rft.config import Config
from rft.config.section import alternatives
from rft.plugins import nearest

Key = tuple[str, ...]
USUAL_NAMES = {
    "lr": "trainer.learning_rate",
    "weight_decay": "trainer.weight_decay",
    "grad_clip": "trainer.max_grad_norm",
    "max_grad_norm": "trainer.max_grad_norm",
    "batch_size": "trainer.groups_per_step",
    "train_batch_size": "trainer.groups_per_step",
    "max_steps": "trainer.steps",
    "total_steps": "trainer.steps",
    "n": "rollout.samples",
    "num_generations": "rollout.samples",
    "group_size": "rollout.samples",
    "max_new_tokens": "rollout.max_tokens",
    "max_completion_length": "rollout.max_tokens",
    "beta": "algorithm.kl_coef",
    "kl_beta": "algorithm.kl_coef",
    "epsilon": "algorithm.clip_low",
    "clip_range": "algorithm.clip_low",
    "model": "policy.model",
    "model_name": "policy.model",
    "model_name_or_path": "policy.model",
    "model_path": "policy.model",
    "dataset": "tasks.source",
    "dataset_name": "tasks.source",
    "reward": "processor.rewards",
    "reward_funcs": "processor.rewards",
    "output_dir": "run.folder",
    "report_to": "trackers",
    "lora_rank": "trainer.lora.rank",
    "lora_r": "trainer.lora.rank",
    "optimizer": "trainer.learning_rate",
    "optim": "trainer.learning_rate",
    "num_train_steps": "trainer.steps",
    "num_steps": "trainer.steps",
    "max_length": "rollout.max_tokens",
    "max_response_length": "rollout.max_tokens",
    "rollout_n": "rollout.samples",
    "num_samples": "rollout.samples",
    "clip_ratio": "algorithm.clip_low",
    "clip_eps": "algorithm.clip_low",
    "cliprange": "algorithm.clip_low",
    "kl_loss_coef": "algorithm.kl_coef",
    "adv_estimator": "algorithm.advantage",
    "entropy_coeff": "algorithm.entropy_coef",
    "data": "tasks.source",
    "train_files": "tasks.source",
    "prompt_key": "tasks.options",
    "reward_model": "processor.rewards",
    "reward_fn": "processor.rewards",
    "rewards": "processor.rewards",
    "checkpoint_dir": "run.folder",
    "save_steps": "trainer.checkpoint_interval",
    "save_freq": "trainer.checkpoint_interval",
    "eval_steps": "eval.every_versions",
    "logger": "trackers.use",
    "use_wandb": "trackers.use",
    "bf16": "trainer.dtype",
    "precision": "trainer.dtype",
    "gradient_accumulation_steps": "trainer.micro_batch_tokens",
    "num_gpus": "trainer.ranks",
    "num_workers": "launcher.explorers",
}
"""What other frameworks call our settings, in whatever section they have them."""


def explain(fault: ErrorDetails, key: Key, origins: Mapping[Key, str], written: Key | None = None) -> str:
    """Return what is wrong with ``key``; its origin is looked up as ``written``, by default as ``key``."""
    dotted, written = ".".join(key), written or key
    origin = next((origins[written[:n]] for n in range(len(written), 0, -1) if written[:n] in origins), "")
    # A fault of several sections together has no key of its own: it comes from all that was written.
    origin = origin or " and ".join(dict.fromkeys(origins.values())) or "the defaults"
    if fault["type"] == "extra_forbidden":
        return f"{origin}: unknown key '{dotted}'. {_suggest(key)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("value_error", "missing") or is_secret(key):
        return f"{origin}: {dotted}: {message}" if dotted else f"{origin}: {message}"
    description = _description(key)
    found = json.dumps(fault["input"], default=str)
    # pydantic lists the choices as "'a', 'b' or 'c'".
    near = nearest(str(fault["input"]), re.findall("'([^']*)'", fault.get("ctx", {}).get("expected", "")))
    hint = f" Did you mean '{near}'?" if near else ""
    meaning = f" ({dotted}: {description})" if description else ""
    return f"{origin}: {dotted}: found {found}; {message[:1].lower()}{message[1:]}.{hint}{meaning}"


def key_of(fault: ErrorDetails) -> Key:
    return tuple(str(part) for part in fault["loc"])


def is_secret(key: Key) -> bool:
    return SecretStr in alternatives(annotation_of(key))


def annotation_of(key: Key) -> Any:
    """Return the annotation of the field ``key``, ``Any`` if there is no such field."""
    if key[:1] in (("trainers",), ("stages",)) and len(key) > 2:  # their fields are those of the tree itself
        key = key[2:]
    section: Any = Config
    for name in key:
        if isinstance(section, type) and issubclass(section, BaseModel) and name in section.model_fields:
            section = section.model_fields[name].annotation
        elif get_origin(section) in (dict, list):  # tables that the user names, as eval.sets.<name>, imports.<name>
            section = get_args(section)[-1]
        else:
            return Any
    return section


def _suggest(key: Key) -> str:
    known = known_names(key[:-1])
    if not known:
        return ""
    near = USUAL_NAMES.get(key[-1]) or nearest(key[-1], known) or _elsewhere(key[-1])
    hint = f"Did you mean '{near}'? " if near else ""
    where = f"[{'.'.join(key[:-1])}]" if len(key) > 1 else "the top level"
    return f"{hint}Allowed in {where}: {', '.join(known)}."


def _elsewhere(name: str) -> str | None:
    """Return the field of that name in another section, or in two of them."""
    found = [f"{section}.{name}" for section in Config.model_fields if name in known_names((section,))]
    return "' or '".join(found) if 0 < len(found) <= 2 else None


def known_names(section_key: Key) -> list[str]:
    section = annotation_of(section_key)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _description(key: Key) -> str:
    section = annotation_of(key[:-1])
    if isinstance(section, type) and issubclass(section, BaseModel) and key[-1:] and key[-1] in section.model_fields:
        return " ".join((section.model_fields[key[-1]].description or "").split())
    return ""
