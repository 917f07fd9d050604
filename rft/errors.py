"""The errors of Stream-RFT. Each message tells the operator what to do.

RftError                 exit code 1
├── ConfigError          exit code 2: the configuration is wrong; nothing was started
├── BrokerError          the broker cannot be reached or refuses us
│   └── TopicError       a topic is missing or contradicts the design
├── DecodeError          an event is malformed (goes to the dead letter queue)
├── EncodeError          a record cannot be written as an event
├── RegistryError        the schema registry refuses us
│   ├── RegistryUnreachableError   it does not answer; trying again may help
│   └── IncompatibleSchemaError    a schema would break readers or writers of another version
├── RolloutError         a rollout failed after its retries
├── RewardError          a reward function failed
├── StarvationError       groups come and go, and none of them can be trained
├── SamplerGapError      the trainer's log-probabilities are not the sampler's, and the run is to stop then
├── PolicyError          a model cannot be loaded or cannot generate
│   └── EngineDiedError  the engine beneath a policy is gone; its explorer must be started anew
├── WeightsError         a weight version cannot be published or fetched
├── CheckpointError      a checkpoint cannot be written or read
├── EngineError          what computes the steps cannot be started, or a rank of it has died
├── FencedError          exit code 3, not to be started again: another trainer with this identity has taken over
├── ArchiveError         an archive cannot be written or read
├── DataError            a file of tasks, demonstrations or preferences cannot be imported
└── MissingRangeError    events that are needed are not on the log, or not in the archive
"""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.errors import (
    DecodeError,
    EncodeError,
    IncompatibleSchemaError,
    RegistryError,
    RegistryUnreachableError,
    RftError,
)

__all__ = [
    "ArchiveError",
    "BrokerError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DecodeError",
    "EncodeError",
    "EngineDiedError",
    "EngineError",
    "FencedError",
    "IncompatibleSchemaError",
    "MissingRangeError",
    "PolicyError",
    "RegistryError",
    "RegistryUnreachableError",
    "RewardError",
    "RftError",
    "RolloutError",
    "SamplerGapError",
    "StarvationError",
    "TopicError",
    "WeightsError",
]


class ConfigError(RftError):
    """The configuration is wrong. Names the key, its origin, what was found and what is allowed."""

    exit_code = 2


class BrokerError(RftError):
    """The broker cannot be reached or refuses us; the message holds the real cause."""


class TopicError(BrokerError):
    """A topic is missing or was created with settings that contradict the design."""


class RolloutError(RftError):
    """A rollout failed or ran past its deadline."""


class RewardError(RftError):
    """A reward function raised or returned something that is not a finite number."""


class StarvationError(RftError):
    """Many groups in a row were retired without one gradient step; the message says what became of them."""


class SamplerGapError(RftError):
    """Trainer and sampler disagree on the log-probabilities of tokens that the same weights wrote."""


class PolicyError(RftError):
    """A model cannot be loaded or cannot generate."""


class EngineDiedError(PolicyError):
    """The engine beneath a policy is gone, and all rollouts with it; none of them has failed of itself."""


class WeightsError(RftError):
    """A weight version cannot be published, fetched or does not match its digest."""


class CheckpointError(RftError):
    """A checkpoint cannot be written or read."""


class EngineError(RftError):
    """What computes a trainer's steps cannot be started, or a rank of it has died."""


class FencedError(RftError):
    """A newer trainer with the same identity holds the redo log; this one must not be started again."""

    exit_code = 3


class DataError(RftError):
    """A file of tasks, demonstrations or preferences cannot be read, or nothing in it can be used."""


class ArchiveError(RftError):
    """An archive of the log cannot be written or read."""


class MissingRangeError(RftError):
    """Events that are needed are not there: deleted by retention, never archived, or never written.

    The message names the range, since when it is gone where that is known, and the choices.
    """

    def __init__(
        self,
        source: str,
        entity: str,
        partition: int,
        start: int,
        end: int,
        advice: str,
        *,
        since_ms: int | None = None,
    ) -> None:
        """``start`` to ``end`` (exclusive) are the missing offsets of ``entity``'s ``partition`` in ``source``;
        ``since_ms`` is the Unix time of the oldest event that is still there.
        """
        self.entity = entity
        self.partition = partition
        self.start = start
        self.end = end
        self.since_ms = since_ms
        which = f"offset {start}" if end == start + 1 else f"offsets {start} to {end - 1}"
        kept = ""
        if since_ms is not None:
            kept = f"; the next event there is of {datetime.fromtimestamp(since_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        super().__init__(f"{source}: {entity}, partition {partition}: {which} are missing{kept}. {advice}")


def first_line(error: BaseException) -> str:
    """What an error says first; libraries add pages."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
