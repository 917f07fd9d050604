"""Decides how a member gets to the newest announced version: receive it, fetch its folder, or wait. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from schemas.events import WeightVersion


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """The version that a member holds; none at first."""

    version: int = -1
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Receive:
    """Take part in the announced transfer."""

    announced: WeightVersion
    receivers: tuple[str, ...]
    """The member's own."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read the folder of a version."""

    version: int
    sha256: str
    uri: str


Choice: TypeAlias = Receive | Fetch | None


def choose(announced: WeightVersion | None, held: HeldVersion, receivers: Sequence[str], tried_epoch: int) -> Choice:
    """Choose how a member gets to the newest weights; None to wait for the next announcement.

    Args:
        announced: the model's newest event.
        held: what the member holds.
        receivers: the member's own, in a collective.
        tried_epoch: the newest transfer that the member took part in or saw fail.
    """
    if announced is None or not _newer(announced.version, announced.sha256, held):
        return None
    invited = tuple(receiver for receiver in receivers if receiver in announced.members)
    if invited and len(invited) == len(receivers) and announced.epoch > tried_epoch:
        return Receive(announced, invited)
    if announced.uri:
        return Fetch(announced.version, announced.sha256, announced.uri)
    if announced.stored_version > held.version:
        return Fetch(announced.stored_version, announced.stored_sha256, announced.stored_uri)
    return None


def supersedes(found: WeightVersion, wanted: WeightVersion | None) -> bool:
    """Return whether ``found``, read after ``wanted``, replaces it: a version may be announced more than once."""
    return wanted is None or found.version >= wanted.version


def _newer(version: int, sha256: str, held: HeldVersion) -> bool:
    """Return whether the log announces a later version, or other bytes under the number that is held."""
    return version > held.version or (version == held.version and sha256 != held.sha256)
