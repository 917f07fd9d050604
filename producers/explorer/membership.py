"""Decides how an explorer belongs to the consumer group of explorers, and names what excludes it.

A static member has an id that outlives its process. The coordinator keeps its partitions for the session timeout, so an
explorer that is back within that time disturbs nobody.
"""

from __future__ import annotations

import os
import platform
import re
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import FencedInstanceIdError, InconsistentGroupProtocolError, KafkaError

from rft.config import Config
from rft.errors import BrokerError, FencedError
from rft.log.topics import consumer_group

_ASSIGNORS = {"cooperative": CooperativeStickyAssignor, "eager": RangePartitionAssignor}
_MAX_ID_LENGTH = 249


class Membership:
    """Holds how one explorer belongs to the group."""

    def __init__(self, config: Config) -> None:
        self.group = consumer_group(config, "explorers")
        self.id = instance_id(os.environ.get("RFT_ROLE_NAME")) if config.rollout.static_membership else None
        """The static id; None for a member that leaves the group with its process."""
        self._assignor = _ASSIGNORS[config.rollout.assignment]

    @property
    def options(self) -> dict[str, Any]:
        """Settings of the consumer, as kafka-python names them."""
        options: dict[str, Any] = {"partition_assignment_strategy": [self._assignor]}
        return options if self.id is None else options | {"group_instance_id": self.id}

    def raise_if_excluded(self, error: KafkaError) -> None:
        """Raise FencedError or BrokerError if ``error`` says that this process cannot be a member."""
        if isinstance(error, FencedInstanceIdError):
            raise FencedError(
                f"another process has taken over the id {self.id!r} in consumer group {self.group}. Static members "
                "need ids of their own: stop one of the two, or start it with another RFT_ROLE_NAME, or set "
                "rollout.static_membership = false"
            ) from error
        if isinstance(error, InconsistentGroupProtocolError):
            raise BrokerError(
                f"consumer group {self.group} has members that assign partitions in another way. Give all explorers "
                "the same rollout.assignment; 'eager' is that of release 0.1"
            ) from error


def instance_id(role_name: str | None) -> str:
    """Return the id that an explorer has again after a restart: its role's name and the machine's."""
    name = f"{role_name or 'explorer'}-{platform.node()}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:_MAX_ID_LENGTH]
