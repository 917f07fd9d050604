"""``[[stages]]``: runs one after the other, each from the weights of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, model_validator

from rft.config.section import Name, Section

FIXED = ("broker", "log", "registry", "stages", "trainers")
"""Sections that a stage cannot set: they are the same in all stages, or stages do not have them."""


class StageConfig(Section):
    """One stage: a run of its own that starts from the weights of the stage before.

    Besides its name it holds the values that differ in this stage, in any section of the configuration
    (``[stages.trainer]``, ``[[stages.imports]]``, …).
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: Name
    """Name of the stage, and of its folder."""

    @property
    def overrides(self) -> dict[str, Any]:
        """The values that differ in this stage, by section."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _not_fixed(self) -> StageConfig:
        for name in FIXED:
            if name in self.overrides:
                raise ValueError(f"{name} cannot be set for a stage")
        if {"folder", "name"} & set(self.overrides.get("run", {})):
            raise ValueError("run.folder and run.name cannot be set for a stage: they follow from the two names")
        return self


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` overridden by ``over``. Tables are merged, anything else is replaced."""
    result = dict(base)
    for name, value in over.items():
        inner = result.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[name] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


_NAMED_BY = {"policy": {"model": "revision"}, "tasks": {"source": "revision", "eval_source": "eval_revision"}}
"""By section: the field that names a repository of the hub, and that of its revision."""


def with_own_revision(section: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides of a section in which no repository keeps the revision of the one that it replaces."""
    revisions = {revision: None for name, revision in _NAMED_BY.get(section, {}).items() if name in fields}
    return {**revisions, **fields}
