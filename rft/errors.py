"""Defines the errors of Stream-RFT. Each message tells the operator what to do.

RftError                 exit code 1; 3 means that a restart cannot help
├── ConfigError          exit code 2: the configuration is wrong; nothing was started
├── BrokerError          the broker cannot be reached or refuses a request
│   ├── EventTooLargeError   an event is larger than log.max_message_bytes
│   ├── OutageError      the broker does not answer now; it may later
│   ├── OutageLimitError exit code 3: a role has waited for the broker for broker.outage_s
│   └── TopicError       a topic is missing or contradicts the design
│       └── TopicChangedError   exit code 3, and no restart: it is not the topic that a run began with
├── DecodeError          an event is malformed (goes to the dead letter queue)
├── EncodeError          a record cannot be written as an event
├── RegistryError        the schema registry refuses a request
│   ├── RegistryUnreachableError   it does not answer; retrying may help
│   └── IncompatibleSchemaError    a schema would break readers or writers of another version
├── RolloutError         a rollout failed after its retries
├── LoopBlockedError     a user's code held up a role's event loop, and was interrupted
├── RewardError          a reward function failed
│   └── RewardServiceError   what it asks, such as a judge, does not answer now; it may later
├── StallError           a role has work and makes no progress
├── StarvationError      exit code 3: groups are retired, and none of them could be trained
├── SamplerGapError      exit code 3: the trainer's log-probabilities differ from the sampler's, and
│                        trainer.on_logprob_gap is "stop"
├── PolicyError          a model cannot be loaded or cannot generate
│   ├── RequestError     it can never serve this request, such as a prompt longer than its context
│   └── EngineDiedError  the engine of a policy has ended; its explorer must be restarted
├── WeightsError         a weight version cannot be published or fetched
├── CheckpointError      a checkpoint cannot be written or read
│   └── OtherLogError    exit code 3, and no restart: it was made with another log
├── EngineError          a trainer's engine cannot be started, or one of its ranks has died
├── FencedError          exit code 3: another trainer or explorer with this identity has taken over
├── ArchiveError         an archive cannot be written or read
├── HubError             a repository of the Hugging Face hub cannot be found or downloaded
├── DataError            a file of tasks, demonstrations or preferences cannot be imported
│   └── RowError         a row of it cannot be used; the others can
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
    "EventTooLargeError",
    "FencedError",
    "HubError",
    "IncompatibleSchemaError",
    "LoopBlockedError",
    "MissingRangeError",
    "OtherLogError",
    "OutageError",
    "OutageLimitError",
    "PolicyError",
    "RegistryError",
    "RegistryUnreachableError",
    "RequestError",
    "RewardError",
    "RewardServiceError",
    "RftError",
    "RolloutError",
    "RowError",
    "SamplerGapError",
    "StallError",
    "StarvationError",
    "TopicChangedError",
    "TopicError",
    "WeightsError",
]


class ConfigError(RftError):
    """The configuration is wrong. Names the key, its origin, what was found and what is allowed."""

    exit_code = 2


class BrokerError(RftError):
    """The broker cannot be reached or refuses a request; the message holds the cause."""

    transient = True


class OutageError(BrokerError):
    """The broker does not answer now. It may later, so waiting helps, and a restart of the role does not."""


class EventTooLargeError(BrokerError):
    """An event is larger than ``log.max_message_bytes``. It was not sent; others can be."""


class OutageLimitError(BrokerError):
    """The broker has been away for longer than ``broker.outage_s``."""

    exit_code = 3
    transient = False


class TopicError(BrokerError):
    """A topic is missing or was created with settings that contradict the design."""

    transient = False


class TopicChangedError(TopicError):
    """A topic was deleted and created again, or got more partitions. No restart helps: offsets or keys mean others."""

    exit_code = 3


class RolloutError(RftError):
    """A rollout failed or ran past its deadline."""


class LoopBlockedError(RftError):
    """A user's code held up a role's event loop, and was interrupted. Raised inside that code."""


class TokenBudgetError(RolloutError):
    """A conversation may have no more tokens: the rollout's budget is spent, or the model's context is full."""


class RewardError(RftError):
    """A reward function raised or returned something that is not a finite number."""


class RewardServiceError(RewardError):
    """A service that a reward function asks does not answer now, or has no room. No sample is at fault."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        """``retry_after_s`` is how long the service asks to be left alone, if it says so."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StallError(RftError):
    """A role has work, and made no progress for ``launcher.stall_s``. Its log holds the stacks of its threads."""


class StarvationError(RftError):
    """Many groups in a row were retired without a gradient step; the message says why they were dropped.

    The log stays as it is, so a restart leads to the same error.
    """

    exit_code = 3


class SamplerGapError(RftError):
    """Trainer and sampler compute different log-probabilities for tokens that the same weights wrote.

    The operator has asked that the run stops then.
    """

    exit_code = 3


class PolicyError(RftError):
    """A model cannot be loaded or cannot generate."""


class RequestError(PolicyError):
    """A policy can never serve a request: another try of the same rollout fails, too."""


class PromptTooLongError(RequestError):
    """The messages before a conversation's first turn do not fit the model's context."""


class EngineDiedError(PolicyError):
    """The engine of a policy has ended, and all its rollouts with it. None of them has failed by itself."""


class WeightsError(RftError):
    """A weight version cannot be published or fetched, or does not match its digest."""


class CheckpointError(RftError):
    """A checkpoint cannot be written or read."""


class OtherLogError(CheckpointError):
    """A checkpoint was made with another log. No restart helps."""

    exit_code = 3
    transient = False


class EngineError(RftError):
    """A trainer's engine cannot be started, or one of its ranks has died."""


class FencedError(RftError):
    """A newer trainer with the same identity holds the redo log, or a newer explorer the id in the consumer group. This
    one must not be restarted."""

    exit_code = 3


class HubError(RftError):
    """A repository of the Hugging Face hub cannot be found or downloaded."""


class DataError(RftError):
    """A file of tasks, demonstrations or preferences cannot be read, or nothing in it can be used."""


class RowError(DataError):
    """A row of a file cannot be used; the others can. The message is the cause, without the row's number."""


class ArchiveError(RftError):
    """An archive of the log cannot be written or read."""


class MissingRangeError(RftError):
    """Events that are needed are missing: deleted by retention, never archived, or never written.

    The message names the range, the oldest event that is left if that is known, and what to do.
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
        ``since_ms`` is the Unix time of the oldest event that is left.
        """
        self.entity = entity
        self.partition = partition
        self.start = start
        self.end = end
        self.since_ms = since_ms
        which = f"offset {start}" if end == start + 1 else f"offsets {start} to {end - 1}"
        next_event = ""
        if since_ms is not None:
            next_event = (
                f"; the next event is from {datetime.fromtimestamp(since_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
            )
        super().__init__(f"{source}: {entity}, partition {partition}: {which} are missing{next_event}. {advice}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text: libraries add pages."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
