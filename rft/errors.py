"""The errors of Stream-RFT. Each message tells the operator what to do.

RftError                 exit code 1
├── ConfigError          exit code 2: the configuration is wrong; nothing was started
├── BrokerError          the broker cannot be reached or refuses us
│   └── TopicError       a topic is missing or contradicts the design
├── DecodeError          an event is malformed (goes to the dead letter queue)
├── EncodeError          a record cannot be written as an event
├── RolloutError         a rollout failed after its retries
├── RewardError          a reward function failed
├── PolicyError          a model cannot be loaded or cannot generate
├── WeightsError         a weight version cannot be published or fetched
└── CheckpointError      a checkpoint cannot be written or read
"""

from __future__ import annotations

from schemas.errors import DecodeError, EncodeError, RftError

__all__ = [
    "BrokerError",
    "CheckpointError",
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "PolicyError",
    "RewardError",
    "RftError",
    "RolloutError",
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


class PolicyError(RftError):
    """A model cannot be loaded or cannot generate."""


class WeightsError(RftError):
    """A weight version cannot be published, fetched or does not match its digest."""


class CheckpointError(RftError):
    """A checkpoint cannot be written or read."""
