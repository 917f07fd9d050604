"""Types of :mod:`rft.weights.membership`: the events that it is given and the actions that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

# Events.


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """A member has announced itself."""

    member: str
    receivers: tuple[str, ...]
    """Its ranks in a collective of this trainer; empty if it reads folders only."""
    version: int
    sha256: str
    epoch: int
    """Newest epoch that it knows of."""
    present: bool = True
    """False if it has left."""


@dataclass(frozen=True, slots=True)
class VersionOffered:
    """The trainer has a new version."""

    version: int
    sha256: str
    stored: bool
    """True if its folder is written."""


@dataclass(frozen=True, slots=True)
class TransferEnded:
    """A transfer is over.

    Receivers in neither set are alive, but have failed.
    """

    epoch: int
    reached: frozenset[str]
    """Receivers that hold the version, verified."""
    unresponsive: frozenset[str]
    """Receivers that did not join or did not answer."""


@dataclass(frozen=True, slots=True)
class FolderStored:
    """The folder of a version was written, or could not be."""

    version: int
    written: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


MembershipEvent: TypeAlias = MemberSeen | VersionOffered | TransferEnded | FolderStored | Tick


# Actions.


@dataclass(frozen=True, slots=True)
class OpenTransfer:
    """Announce an epoch and begin its transfer."""

    epoch: int
    version: int
    receivers: tuple[str, ...]
    remaining_s: float
    """Until the update's deadline."""


@dataclass(frozen=True, slots=True)
class AnnounceVersion:
    """Announce a version that no member receives by collective."""

    version: int


@dataclass(frozen=True, slots=True)
class AbortTransfer:
    """End the transfer of this epoch, whatever it is doing."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """Write the folder of the current version and announce it, because a member needs it."""

    version: int


@dataclass(frozen=True, slots=True)
class UpdateClosed:
    """Report an update that is over. The next version may be offered."""

    version: int
    current: tuple[str, ...]
    """Members that hold the version."""
    missed: tuple[str, ...]
    """Members that the update was for and that do not hold the version."""
    epochs: int
    seconds: float


Action: TypeAlias = OpenTransfer | AnnounceVersion | AbortTransfer | StoreFolder | UpdateClosed
