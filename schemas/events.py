"""The typed records that travel on the topics, one class for each ``.avsc`` file.

Token-level fields are NumPy arrays here and packed little-endian bytes on the wire
(see :mod:`schemas.codec`). Records are immutable and compare by value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

TokenArray = npt.NDArray[np.int32]
MaskArray = npt.NDArray[np.uint8]
LogprobArray = npt.NDArray[np.float32]

NOT_WRITTEN = -1
"""Version stamp of a token that no policy wrote: prompt, tool output, demonstration."""


class Record:
    """Base of all records: equality by value, with arrays compared element by element."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(
            _same(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    __hash__ = None  # type: ignore[assignment]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    return bool(a == b)


def _empty_tokens() -> TokenArray:
    return np.zeros(0, dtype=np.int32)


def _empty_mask() -> MaskArray:
    return np.zeros(0, dtype=np.uint8)


def _empty_logprobs() -> LogprobArray:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Task(Record):
    """One prompt to be rolled out ``samples`` times: the order for one group."""

    group_id: str
    """Key of the group; ``train-00000012`` or ``eval-00000003-00000012``."""
    number: int
    """Position in its split's sequence, from 0. Retirement is counted in these numbers."""
    split: str
    """``train`` or ``eval``."""
    source: str
    """Name of the task source."""
    prompt: str
    answer: str | None
    samples: int
    """Group size: rollouts to make."""
    max_tokens: int
    """Most tokens that one rollout may write."""
    temperature: float
    """Sampling temperature; 0 is greedy."""
    top_p: float
    seed: int
    """Seeds the sampling of this group."""
    min_version: int
    """Weight version that an explorer must hold, at least, before it starts."""
    issued_at: int
    """Unix time in ms."""
    metadata: str = "{}"
    """JSON object, handed to workflow and reward functions."""


@dataclass(frozen=True, slots=True, eq=False)
class Experience(Record):
    """What the policy did once: one trajectory with all that learning needs.

    Arrays have one element a token, prompt included (length T).
    """

    experience_id: str
    """``group_id/sample`` or ``group_id/sample/turn``; deterministic, so a rollout done twice is seen twice."""
    group_id: str
    number: int
    """The task's number; -1 when no conductor issued it."""
    sample: int
    split: str
    group_size: int
    """Members that the group is to have."""
    prompt: str
    response: str
    answer: str | None
    created_at: int
    """Unix time in ms."""
    source: str
    """Who published it (explorer id or producer name)."""
    model: str
    tokens: TokenArray = field(default_factory=_empty_tokens)
    """int32 [T]: prompt and response token ids."""
    action_mask: MaskArray = field(default_factory=_empty_mask)
    """uint8 [T]: 1 where the policy wrote the token."""
    logprobs: LogprobArray = field(default_factory=_empty_logprobs)
    """float32 [T]: the sampler's log-probability; 0 where ``action_mask`` is 0."""
    versions: TokenArray = field(default_factory=_empty_tokens)
    """int32 [T]: weight version that wrote the token; -1 where ``action_mask`` is 0. Run-length on the wire."""
    kind: str = "rollout"
    """``rollout``, ``demonstration`` or ``preference``."""
    turn: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    finish_reason: str = "stop"
    """``stop``, ``length`` or ``error``."""
    error: str | None = None
    """Why the rollout failed, when ``finish_reason`` is ``error``; its arrays are then empty."""
    reward: float | None = None
    """A reward that the producer or environment already knows."""
    duration_ms: int = 0
    """How long the rollout took."""
    metadata: str = "{}"
    """JSON object from the task."""

    @property
    def oldest_version(self) -> int:
        """Lowest weight version among the tokens the policy wrote; -1 when it wrote none."""
        written = self.versions[self.action_mask == 1]
        return int(written.min()) if written.size else NOT_WRITTEN


@dataclass(frozen=True, slots=True, eq=False)
class Reward(Record):
    """A reward for one experience, from any producer, at any time."""

    experience_id: str
    group_id: str
    source: str
    """Name of the reward's maker, e.g. ``human`` or ``unit_tests``."""
    value: float
    created_at: int
    """Unix time in ms."""
    revision: int = 0
    """A higher revision from the same source replaces a lower one."""
    metadata: str = "{}"


@dataclass(frozen=True, slots=True, eq=False)
class ScoredExperience(Record):
    """An experience with its reward and the processor's verdict, ready for a trainer."""

    experience: Experience
    origin_partition: int
    """Where the experience stands in the ``experiences`` topic."""
    origin_offset: int
    verdict: str
    """``train`` or ``filtered``."""
    cause: str | None
    """Why it was filtered."""
    reward: float
    """Combined reward; 0 when filtered before scoring."""
    rewards: Mapping[str, float]
    """Reward by function."""
    priority: float
    release_id: str
    """Digest of the member ids of this release; the same members give the same id."""
    release_size: int
    """Members of this release, filtered ones included. The group is whole when all have come."""
    scored_at: int
    """Unix time in ms."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightVersion(Record):
    """New weights of a model and where to get them."""

    model: str
    version: int
    """Counts up by 1 from 0, the weights that training started from."""
    step: int
    """Optimiser steps taken so far."""
    transport: str
    """``checkpoint``: read ``uri``."""
    uri: str
    """Folder (Hugging Face layout) relative to the run's folder, or absolute."""
    sha256: str
    """Of the safetensors file."""
    size_bytes: int
    final: bool
    """True for the last version of a run."""
    created_at: int
    """Unix time in ms."""
    epoch: int = -1
    """Newest transfer that was opened for this model; -1 before the first."""
    members: tuple[str, ...] = ()
    """Receivers that are to take part in the transfer ``epoch``; none when this event opens none."""
    backend: str = ""
    """Of the transfer: ``gloo`` or ``nccl``."""
    rendezvous: str = ""
    """Where its members meet: ``host:port/nonce``."""
    deadline_ms: int = 0
    """What the transfer may take, from this event on."""
    layout: bytes = b""
    """The safetensors file's header, zlib."""
    bucket_bytes: int = 0
    checksums: bytes = b""
    """CRC-32C of each bucket, little-endian u4."""
    stored_version: int = -1
    """Newest version that is in a folder; -1 for none."""
    stored_uri: str = ""
    stored_sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Member(Record):
    """An explorer announces itself, its version and how its time went."""

    member_id: str
    role: str
    engine: str
    state: str
    """``here`` or ``left``."""
    version: int
    """Weight version it now holds; -1 before the first."""
    sha256: str
    """Digest of the weights it holds; empty before the first."""
    address: str
    """host:pid, or where its transport can be reached."""
    heartbeat_at: int
    """Unix time in ms."""
    stats: Mapping[str, float] = field(default_factory=dict)
    """Counters since start: ``rollouts``, ``failed``, ``tokens``, ``generating_s``, ``waiting_s``, ``resync_s``,
    ``pause_s``, ``received``, ``missed``, ``received_bytes``."""
    transport: str = "checkpoint"
    """``checkpoint``, or ``collective`` (and then by checkpoint, too)."""
    backend: str = ""
    """Of its collective."""
    receivers: int = 1
    """Ranks that it needs in a collective."""
    epoch: int = -1
    """Newest transfer that it knows of; -1 for none."""
    host: str = ""
    """Name of its machine."""


@dataclass(frozen=True, slots=True)
class EventRef:
    """The exact place of one ``ready`` event, and what became of it."""

    partition: int
    offset: int
    experience_id: str
    number: int
    staleness: int
    """Trainer's version minus the event's oldest token version; -1 when the policy wrote no token."""
    cause: str = ""
    """Empty for a trained event, otherwise why it was dropped: ``stale``, ``filtered``, ``duplicate`` …"""
    use: int = 1
    """Of a trained event: which time it is that this trainer trains it, from 1."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingStep(Record):
    """One entry of the trainer's redo log.

    ``kind`` is ``step`` for a gradient step and ``retire`` when groups were only dropped (the conductor
    must learn of them even if no step follows). With a ``claim`` a trainer takes the log over: entries of other
    incarnations of the model do not count from there on.
    """

    model: str
    kind: str
    step: int
    """Number of this step, from 1; for ``retire`` the last step taken."""
    version: int
    """Weight version that the step started from."""
    next_version: int
    """Weight version to use from now on: ``version + 1`` if this step is announced, else ``version``."""
    trained: tuple[EventRef, ...]
    dropped: tuple[EventRef, ...]
    retired: tuple[int, ...]
    """Task numbers that need no more waiting for: trained or dropped."""
    digest: str
    """sha256 of the weights after the step; empty for ``retire``."""
    metrics: Mapping[str, float]
    """loss, grad_norm, reward_mean, staleness_max, staleness_mean, idle_s, step_s, …"""
    created_at: int
    """Unix time in ms."""
    incarnation: str = ""
    """Which start of the trainer wrote this: ``host/process/time/random``."""


@dataclass(frozen=True, slots=True)
class ExternalReward:
    """The newest revision of what one source has given to a waiting experience."""

    source: str
    value: float
    revision: int


@dataclass(frozen=True, slots=True)
class WaitingMember:
    """One experience that waits, as a pointer into the log."""

    suffix: str
    """The experience_id without ``group_id/``."""
    offset: int
    """Its place in the same partition of ``experiences``; -1 while only rewards for it have come."""
    size_bytes: int
    """Size of that event's value."""
    cause: str | None
    """Why it is filtered; None when it is usable."""
    exempt: bool
    """True when it needs no external rewards (a demonstration)."""
    reward: float
    """Combined reward of the functions, or the one that came with the experience."""
    rewards: Mapping[str, float]
    """Reward by function."""
    external: tuple[ExternalReward, ...]
    """One entry a source."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting(Record):
    """A group whose experiences wait for external rewards: the processors' own notes, in a compacted topic."""

    group_id: str
    group_size: int
    """Members that the group is to have; 0 while none has come."""
    since: int
    """Unix time in ms of the event that deadlines count from: the first experience's, or the first reward's while
    none has come."""
    members: tuple[WaitingMember, ...]
    released: bool = False
    """True when the group has been released, but its experiences are not all committed as read yet."""


RECORDS: tuple[type[Record], ...] = (
    Task,
    Experience,
    Reward,
    ScoredExperience,
    WeightVersion,
    Member,
    TrainingStep,
    Waiting,
)
