"""Holds what several checks look at. Each part is read once, when the first check asks for it."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.preflight.contract import Role
from infra.preflight.task_samples import TaskSamples, sample_tasks
from infra.preflight.tokenizer import TOKENIZER_FILE, FileTokenizer, read_json
from rft.config import Config
from rft.errors import RftError
from rft.lora.adapter import base_model_folder


class Facts:
    """A configuration, and what it names. Each part is None if it cannot be read: one check of it says why."""

    def __init__(self, config: Config, roles: Collection[Role] = ()) -> None:
        self.config = config
        self.roles = frozenset(roles)
        self.trainers = [config, *(config.of_trainer(identity) for identity in config.trainers)]
        """The configuration as each trainer sees it, the main one first."""

    @cached_property
    def model_folder(self) -> Path | None:
        """The model's folder, or that of the base model if it holds adapters."""
        folder = Path(self.config.policy.model)
        try:
            return base_model_folder(folder) if folder.is_dir() else None
        except RftError:
            return None

    @cached_property
    def model_config(self) -> dict[str, Any]:
        """The model's ``config.json``, of its language part if it has several; empty if there is none."""
        if self.model_folder is None:
            return {}
        try:
            found = read_json(self.model_folder / "config.json")
        except RftError:
            return {}
        text = found.get("text_config")
        return {**found, **text} if isinstance(text, dict) else found

    @cached_property
    def context(self) -> int | None:
        """The most tokens of prompt and answer together."""
        own = next(
            (self.model_config[name] for name in _CONTEXT_NAMES if isinstance(self.model_config.get(name), int)), None
        )
        if self.config.policy.engine == "vllm":
            return self.config.policy.vllm.max_model_len or own
        return own

    @cached_property
    def tokenizer(self) -> FileTokenizer | None:
        """The model's tokenizer; None also if only transformers can read it."""
        folder = self.tokenizer_folder
        if folder is None or not (folder / TOKENIZER_FILE).is_file():
            return None
        try:
            return FileTokenizer(folder)
        except RftError:
            return None

    @property
    def tokenizer_folder(self) -> Path | None:
        """The folder of the tokenizer: that of the model itself, even if it holds adapters."""
        folder = Path(self.config.policy.model)
        return folder if folder.is_dir() else None

    @property
    def tasks(self) -> TaskSamples | None:
        """Some tasks of each source; None also for roles that do not open the sources."""
        issues_tasks = not self.roles.isdisjoint({"conductor", "eval"})
        return self.read_tasks if issues_tasks and isinstance(self.read_tasks, TaskSamples) else None

    @cached_property
    def read_tasks(self) -> TaskSamples | RftError:
        """Some tasks of each source, or why they cannot be read."""
        try:
            return sample_tasks(self.config, self.tokenizer)
        except RftError as error:
            return error

    @property
    def chats(self) -> bool:
        """Whether prompts become messages in the model's chat template."""
        rollout = self.config.rollout
        return self.config.tasks.chat or rollout.workflow in ("chat", "environment", "react") or bool(rollout.agent)


_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
