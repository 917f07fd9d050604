"""Tells names of hub repositories from paths. Pure, apart from a look at which folders exist."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rft.config import PolicyConfig
from rft.errors import ConfigError

PREFIX = "hf:"
"""Marks a hub name where a path or another source may stand, too."""
MAIN = "main"
Kind = Literal["model", "dataset"]

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"{_PART}/{_PART}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at a revision."""

    kind: Kind
    name: str
    """``owner/name``"""
    revision: str = MAIN
    """A branch, a tag or a commit."""

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, so that its content never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def key(self) -> str:
        """The text that stands for this repository and revision in files."""
        return f"{self.kind} {self.name}@{self.revision}"

    def at(self, commit: str) -> Repository:
        """Return the repository at ``commit``."""
        return replace(self, revision=commit)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision[:12] if self.pinned else self.revision}"


def model_repository(policy: PolicyConfig) -> Repository | None:
    """Return the repository that ``policy.model`` names; None if it is a path.

    ``owner/name`` is a path if there is such a folder, or a folder ``owner`` that it could be in. ``hf:owner/name`` is
    never a path. Raises ConfigError if no name follows ``hf:``.
    """
    text = policy.model
    if not text.startswith(PREFIX):
        path = Path(text)
        if not _NAME.fullmatch(text) or path.exists() or path.parent.exists():
            return None
    return Repository("model", name_after_prefix(text, "policy.model"), policy.revision or MAIN)


def dataset_repository(source: str, revision: str | None, field: str) -> Repository | None:
    """Return the repository that ``source`` names as ``hf:owner/name``; None if it is anything else.

    ``field`` is the setting that holds it. Raises ConfigError if no name follows ``hf:``.
    """
    if not source.startswith(PREFIX):
        return None
    return Repository("dataset", name_after_prefix(source, field), revision or MAIN)


def name_after_prefix(text: str, field: str) -> str:
    """Return ``owner/name`` without ``hf:``. Raises ConfigError that names ``field`` if it has another form."""
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{field} = '{text}': write {PREFIX}owner/name, as the hub shows it")
    return name
