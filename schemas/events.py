"""Defines the typed records of the topics, one class for each ``.avsc`` file.

Token-level fields are NumPy arrays here, and packed little-endian bytes on the wire (see :mod:`schemas.packing`).
Records are immutable and compare by value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.record import NOT_WRITTEN as NOT_WRITTEN
from schemas.record import LogprobArray as LogprobArray
from schemas.record import MaskArray as MaskArray
from schemas.record import Record as Record
from schemas.record import TokenArray as TokenArray
from schemas.record import empty_logprobs, empty_mask, empty_tokens
from schemas.sessions import Session, Turn


@dataclass(frozen=True, slots=True, eq=False)
class Task(Record):
    """One prompt to roll out ``samples`` times, which gives one group."""

    group_id: str
    """Key of the group; ``train-00000012`` or ``eval-00000003-00000012``."""
    number: int
    """Index in the sequence of its split, from 0. A retired task is named by this number."""
    split: str
    """``train`` or ``eval``."""
    source: str
    """Name of the task source."""
    prompt: str
    answer: str | None
    samples: int
    """Group size: number of rollouts."""
    max_tokens: int
    """Token limit of one rollout."""
    temperature: float
    """Sampling temperature; 0 is greedy."""
    top_p: float
    seed: int
    """Seeds the sampling of this group."""
    min_version: int
    """Oldest weight version that an explorer may start with."""
    issued_at: int
    """Unix time in ms."""
    metadata: str = "{}"
    """JSON object, handed to workflow and reward functions."""
    spare: int = 0
    """Rollouts beyond ``samples``. The group is complete with the first ``samples`` that do not fail."""

    @property
    def rollouts(self) -> int:
        """Return how many rollouts to make."""
        return self.samples + self.spare


@dataclass(frozen=True, slots=True, eq=False)
class Experience(Record):
    """One trajectory, or one row of it, with everything that learning needs. Arrays have one element a token, prompt
    included, except ``turn_rewards``."""

    experience_id: str
    """``group_id/sample``, or ``group_id/sample/row`` where one rollout gives several rows. A rollout that is repeated
    gets the same ids, so it is removed as a duplicate."""
    group_id: str
    number: int
    """The task's number; -1 if no conductor issued it."""
    sample: int
    split: str
    group_size: int
    """Number of samples of the complete group. A sample of several rows counts as one."""
    prompt: str
    response: str
    answer: str | None
    created_at: int
    """Unix time in ms."""
    source: str
    """Who published it (explorer id or producer name)."""
    model: str
    tokens: TokenArray = field(default_factory=empty_tokens)
    """int32 [T]: prompt and response token ids."""
    action_mask: MaskArray = field(default_factory=empty_mask)
    """uint8 [T]: 1 where the policy wrote the token."""
    logprobs: LogprobArray = field(default_factory=empty_logprobs)
    """float32 [T]: the sampler's log-probability; 0 where ``action_mask`` is 0."""
    versions: TokenArray = field(default_factory=empty_tokens)
    """int32 [T]: weight version that wrote the token; -1 where ``action_mask`` is 0. Run-length on the wire."""
    kind: str = "rollout"
    """``rollout``, ``demonstration`` or ``preference``."""
    turn: int = 0
    """Not used. See ``row``."""
    temperature: float = 1.0
    top_p: float = 1.0
    finish_reason: str = "stop"
    """``stop``, ``length`` or ``error``."""
    error: str | None = None
    """Why the rollout failed, if ``finish_reason`` is ``error``. Its arrays are then empty."""
    reward: float | None = None
    """A reward of the sample that the producer or environment already knows. Of several rows, the last one's counts."""
    duration_ms: int = 0
    """How long the rollout took."""
    metadata: str = "{}"
    """JSON object from the task."""
    row: int = 0
    """Which row of its sample this is, from 0. A rollout gives several rows where its history was rewritten."""
    rows: int = 1
    """Rows of its sample. Those of one try have the same ``source`` and ``created_at``."""
    turn_rewards: LogprobArray = field(default_factory=empty_logprobs)
    """float32 [turns of the row]: rewards by turn, NaN where none is known; empty when none is. A turn is a contiguous
    run of ``action_mask`` 1."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Rewards of the sample by name. Of several rows, the last one's count."""
    spare: int = 0
    """How many of ``group_size`` samples the group need not wait for."""

    @property
    def sample_id(self) -> str:
        """Return what names the sample: ``group_id/sample`` for each of several rows, else the ``experience_id``."""
        return self.experience_id if self.rows == 1 else f"{self.group_id}/{self.sample}"

    @property
    def attempt(self) -> str:
        """Return what names the try of a rollout with several rows: rows of different tries never make one sample."""
        return "" if self.rows == 1 else f"{self.source}/{self.created_at}"

    @property
    def oldest_version(self) -> int:
        """Lowest weight version of the tokens that the policy wrote; -1 if it wrote none."""
        written = self.versions[self.action_mask == 1]
        return int(written.min()) if written.size else NOT_WRITTEN


@dataclass(frozen=True, slots=True, eq=False)
class Reward(Record):
    """A reward for one sample. Any producer may send it at any time."""

    experience_id: str
    group_id: str
    source: str
    """Who gives the reward, e.g. ``human`` or ``unit_tests``."""
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
    """Partition of the experience in the topic ``experiences``."""
    origin_offset: int
    """Offset of the experience in that partition."""
    verdict: str
    """``train`` or ``filtered``."""
    cause: str | None
    """Why it was filtered."""
    reward: float
    """Combined reward; 0 if the experience was filtered before scoring."""
    rewards: Mapping[str, float]
    """Reward by function."""
    priority: float
    release_id: str
    """Digest of the experience ids of this release. The same experiences give the same id."""
    release_size: int
    """Number of experiences of this release, filtered ones included. The group is complete when all are read."""
    scored_at: int
    """Unix time in ms."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightVersion(Record):
    """New weights of a model, and where to get them."""

    model: str
    version: int
    """Counts up by 1. Version 0 is the weights that training started from."""
    step: int
    """Number of optimizer steps so far."""
    transport: str
    """``checkpoint``: the weights are in ``uri``."""
    uri: str
    """Folder (Hugging Face layout) relative to the run's folder, or absolute."""
    sha256: str
    """sha256 of the safetensors file."""
    size_bytes: int
    final: bool
    """True for the last version of a run."""
    created_at: int
    """Unix time in ms."""
    epoch: int = -1
    """Number of the newest transfer of this model; -1 before the first."""
    members: tuple[str, ...] = ()
    """Receivers that take part in the transfer ``epoch``; empty if this event opens none."""
    backend: str = ""
    """Backend of the transfer: ``gloo``, ``nccl`` or ``ipc``."""
    rendezvous: str = ""
    """Where the members of the transfer meet: ``host:port/nonce``."""
    deadline_ms: int = 0
    """Time limit of the transfer in ms, measured from this event."""
    layout: bytes = b""
    """The safetensors file's header, zlib."""
    bucket_bytes: int = 0
    checksums: bytes = b""
    """CRC-32C of each bucket, little-endian u4."""
    stored_version: int = -1
    """Newest version that is in a folder; -1 if none is."""
    stored_uri: str = ""
    stored_sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Member(Record):
    """An explorer's announcement of itself, of its weight version and of its counters."""

    member_id: str
    role: str
    engine: str
    state: str
    """``here`` or ``left``."""
    version: int
    """Weight version that it holds; -1 before the first."""
    sha256: str
    """Digest of the weights that it holds; empty before the first."""
    address: str
    """host:pid, or the address of its transport."""
    heartbeat_at: int
    """Unix time in ms."""
    stats: Mapping[str, float] = field(default_factory=dict)
    """Counters since its start: ``rollouts``, ``failed``, ``tokens``, ``generating_s``, ``waiting_s``, ``resync_s``,
    ``pause_s``, ``received``, ``missed``, ``received_bytes``."""
    transport: str = "checkpoint"
    """``checkpoint``, or ``collective`` (which includes ``checkpoint``)."""
    backend: str = ""
    """Backend of its collective."""
    receivers: int = 1
    """Number of ranks that it needs in a collective."""
    epoch: int = -1
    """Newest transfer that it knows; -1 if none."""
    host: str = ""
    """Name of its machine."""
    generate_url: str = ""
    """Where gateways ask it for generations; empty if it serves none."""
    generate_proof: str = ""


@dataclass(frozen=True, slots=True)
class EventRef:
    """The position of one ``ready`` event, and whether it was trained or why it was dropped."""

    partition: int
    offset: int
    experience_id: str
    number: int
    staleness: int
    """Trainer's version minus the oldest version of the event's tokens; -1 if the policy wrote no token."""
    cause: str = ""
    """Empty for a trained event, otherwise why it was dropped: ``stale``, ``filtered``, ``duplicate``, …"""
    use: int = 1
    """For a trained event: how often this trainer has trained it, this time included."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingStep(Record):
    """One entry of the trainer's redo log.

    ``kind`` is ``step`` for a gradient step, and ``retire`` if groups were only dropped: the conductor must learn of
    them even if no step follows. With a ``claim`` a trainer takes over the log: from there on, entries of the model's
    other incarnations do not count.
    """

    model: str
    kind: str
    step: int
    """Number of this step, from 1; for ``retire`` the number of the last step."""
    version: int
    """Weight version that the step started from."""
    next_version: int
    """Weight version to use from now on: ``version + 1`` if this step is announced, else ``version``."""
    trained: tuple[EventRef, ...]
    dropped: tuple[EventRef, ...]
    retired: tuple[int, ...]
    """Numbers of the tasks that are now trained or dropped."""
    digest: str
    """sha256 of the weights after the step; empty for ``retire``."""
    metrics: Mapping[str, float]
    """loss, grad_norm, reward_mean, staleness_max, staleness_mean, idle_s, step_s, …"""
    created_at: int
    """Unix time in ms."""
    incarnation: str = ""
    """Identifies the start of the trainer that wrote this: ``host/process/time/random``."""


@dataclass(frozen=True, slots=True)
class ExternalReward:
    """The newest revision of the reward that one source has given to a waiting experience."""

    source: str
    value: float
    revision: int


@dataclass(frozen=True, slots=True)
class WaitingMember:
    """One waiting experience, as a pointer into the log."""

    suffix: str
    """The experience_id without ``group_id/``."""
    offset: int
    """Its offset in the same partition of ``experiences``; -1 while there are only rewards for it."""
    size_bytes: int
    """Size of the value of that event."""
    cause: str | None
    """Why it is filtered; None if it is usable."""
    exempt: bool
    """True if it needs no external rewards (a demonstration)."""
    reward: float
    """Combined reward of the functions, or the reward that came with the experience."""
    rewards: Mapping[str, float]
    """Reward by function."""
    external: tuple[ExternalReward, ...]
    """One entry a source."""
    rows: int = 1
    """Rows of its sample."""
    attempt: str = ""
    """Which try of the rollout gave it; empty when its sample has one row."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting(Record):
    """A group whose experiences wait for external rewards. Only processors write it, in a compacted topic."""

    group_id: str
    group_size: int
    """Number of experiences of the complete group; 0 while none has come."""
    since: int
    """Unix time in ms of the event that starts the deadline: the first experience, or before it the first reward."""
    members: tuple[WaitingMember, ...]
    released: bool = False
    """True if the group is released, but the offsets of its experiences are not all committed yet."""


RECORDS: tuple[type[Record], ...] = (
    Task,
    Experience,
    Reward,
    ScoredExperience,
    WeightVersion,
    Member,
    TrainingStep,
    Waiting,
    Turn,
    Session,
)
