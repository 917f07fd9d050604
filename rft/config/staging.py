"""Runs in stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, model_validator

from rft.config.section import Name, Section

FIXED = ("broker", "log", "registry", "stages", "trainers")
"""Sections that are the same in all stages, or that stages do not have."""


class StageConfig(Section):
    """One stage: a run of its own that begins with the last one's weights. Beside its name it holds any section of the
    configuration (``[stages.trainer]``, ``[[stages.imports]]``, …) with what is otherwise in this stage.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: Name
    """Names the stage's folder."""

    @property
    def overrides(self) -> dict[str, Any]:
        """Values by section."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _not_fixed(self) -> StageConfig:
        for name in FIXED:
            if name in self.overrides:
                raise ValueError(f"{name} cannot be set for a stage")
        if {"folder", "name"} & set(self.overrides.get("run", {})):
            raise ValueError("run.folder and run.name of a stage follow from the run's and the stage's name")
        return self


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with what ``over`` has otherwise, section by section."""
    result = dict(base)
    for name, value in over.items():
        inner = result.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[name] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result
