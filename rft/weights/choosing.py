"""What a member does about what was announced: receive, fetch, or wait (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from schemas.events import WeightVersion

COLLECTIVE = "collective"


@dataclass(frozen=True, slots=True)
class Held:
    """What a member holds."""

    version: int = -1
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Receive:
    """Take part in the announced transfer."""

    announced: WeightVersion
    receivers: tuple[str, ...]
    """Own ones."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read a folder."""

    version: int
    sha256: str
    uri: str


Choice: TypeAlias = Receive | Fetch | None


def choose(announced: WeightVersion | None, held: Held, receivers: Sequence[str], tried_epoch: int) -> Choice:
    """The way to the newest weights that ``announced`` opens to a member; None to wait for the next announcement.

    Args:
        announced: the newest event of the model.
        held: what the member holds.
        receivers: its own, in a collective.
        tried_epoch: the newest transfer that it took part in, or saw fail.
    """
    if announced is None or not _newer(announced.version, announced.sha256, held):
        return None
    mine = tuple(receiver for receiver in receivers if receiver in announced.members)
    if mine and len(mine) == len(receivers) and announced.epoch > tried_epoch:
        return Receive(announced, mine)
    if announced.uri:
        return Fetch(announced.version, announced.sha256, announced.uri)
    if announced.stored_version > held.version:
        return Fetch(announced.stored_version, announced.stored_sha256, announced.stored_uri)
    return None


def supersedes(found: WeightVersion, wanted: WeightVersion | None) -> bool:
    """Whether ``found``, read after ``wanted``, is the one to go by: a version may be announced more than once."""
    return wanted is None or found.version >= wanted.version


def _newer(version: int, sha256: str, held: Held) -> bool:
    """A later version, or other bytes than ours under the same number: what the log says holds."""
    return version > held.version or (version == held.version and sha256 != held.sha256)
