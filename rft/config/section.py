"""What all sections share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]
EntityName = Literal["tasks", "experiences", "rewards", "ready", "weights", "members", "steps", "dlq", "waiting"]
"""The topics, see :mod:`rft.log.topics`."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
