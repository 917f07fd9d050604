"""``[trainers.<key>]``: further trainers that read the same log."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from rft.config.section import Section


class TrainerOverrides(Section):
    """Fields in which a further trainer on the same log differs from the main one."""

    trainer: dict[str, Any] = {}
    """Fields of ``[trainer]``, except ``model_key`` and ``follows``."""
    algorithm: dict[str, Any] = {}
    """Fields of ``[algorithm]``."""
    buffer: dict[str, Any] = {}
    """Fields of ``[buffer]``."""
    policy: dict[str, Any] = {}
    """Fields of ``[policy]``; this trainer starts from ``model``."""

    @model_validator(mode="after")
    def _own_identity(self) -> TrainerOverrides:
        for name in ("model_key", "follows"):
            if name in self.trainer:
                raise ValueError(f"trainer.{name} cannot be set here: the identity is the table's name")
        return self
