"""The words of :mod:`rft.weights.membership`: what happens, and what is to be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

# What happens.


@dataclass(frozen=True, slots=True)
class Heard:
    """A member has announced itself."""

    member: str
    receivers: tuple[str, ...]
    """Its ranks in a collective of this trainer; none: it takes checkpoints only."""
    version: int
    sha256: str
    epoch: int
    """Newest epoch that it knows of."""
    here: bool = True
    """False: it has left."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The trainer has a new version."""

    version: int
    sha256: str
    stored: bool
    """Whether its folder is written."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A transfer is over."""

    epoch: int
    reached: frozenset[str]
    """Receivers that have it, verified."""
    silent: frozenset[str]
    """Receivers that did not come or gave no answer; the rest of its receivers failed and are alive."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The folder of a version was written, or could not be."""

    version: int
    done: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Happening: TypeAlias = Heard | Offer | Ended | Stored | Tick


# What is to be done.


@dataclass(frozen=True, slots=True)
class Open:
    """Announce an epoch and begin its transfer."""

    epoch: int
    version: int
    receivers: tuple[str, ...]
    left_s: float
    """Until the update's deadline."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce a version that goes to nobody by collective."""

    version: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """The transfer of this epoch is over, whatever it is doing."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Store:
    """Write the folder of the current version and announce it: a member needs it."""

    version: int


@dataclass(frozen=True, slots=True)
class Closed:
    """An update is over; the next may be offered."""

    version: int
    current: tuple[str, ...]
    """Members that hold it."""
    missed: tuple[str, ...]
    """Members that were to have it and do not."""
    epochs: int
    seconds: float


Action: TypeAlias = Open | Announce | Abandon | Store | Closed
