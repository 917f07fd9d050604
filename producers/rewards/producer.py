"""Sends rewards to the log, each by the id of its experience."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rft.config import Config
from rft.errors import BrokerError, RewardError
from rft.log.writer import EventWriter
from schemas.events import Reward


def group_of(experience_id: str) -> str:
    """Return the group of ``group_id/sample``; it decides the reward's partition.

    Group ids hold no slash. Raises RewardError when the id holds none either.
    """
    group_id, slash, rest = experience_id.partition("/")
    if not (group_id and slash and rest):
        raise RewardError(f"{experience_id!r} is no experience_id: it must be group_id/sample")
    return group_id


class RewardProducer:
    """A typed producer of rewards. Thread-safe. Use it as a context manager, or call ``close``.

    ::

        with RewardProducer("broker:9092") as rewards:
            rewards.send("train-00000012/3", 0.75, source="human")

    A reward may be sent before its experience, or days after it. A reward that is sent twice counts once. To correct
    a reward, send it again with a higher revision.
    """

    def __init__(
        self, config: Config | str, *, namespace: str = "rft", client_id: str = "rewards", flush_timeout_s: float = 60.0
    ) -> None:
        """Connect.

        Args:
            config: A whole configuration (for security, a schema registry, limits), as
                ``rft.config_sources.load_config`` reads it, or only ``host:port[,host:port]`` of a plain cluster.
            namespace: Namespace of the topics (``log.namespace``), when ``config`` is no whole configuration.
            client_id: Our name in the events' ``ce_source`` and, after the namespace, in the cluster's logs and quotas.
            flush_timeout_s: How long the end of the context waits for the broker.

        Raises:
            BrokerError: The broker cannot be reached, with the cause.
            RegistryError: The schema registry cannot be reached or refuses us.
        """
        if isinstance(config, str):
            sections: dict[str, Any] = {
                "broker": {"kind": "external", "bootstrap_servers": config},
                "log": {"namespace": namespace},
            }
            config = Config.model_validate(sections)
        self._flush_timeout_s = flush_timeout_s
        self._writer = EventWriter(config, client_id)

    def send(
        self,
        experience_id: str,
        value: float,
        *,
        source: str,
        revision: int = 0,
        metadata: Mapping[str, Any] | None = None,
        group_id: str | None = None,
    ) -> None:
        """Give an experience a reward. Returns before it is on the log (see ``flush``).

        Args:
            value: Finite; higher is better.
            source: Name of the source, as in ``processor.external``.
            revision: A higher one from the same source replaces a lower one; a repeated one is ignored.
            metadata: Any JSON values to store with it.
            group_id: The experience's group, for foreign ids whose group holds slashes.

        Raises:
            RewardError: The id has no group, or the metadata is not JSON.
            EncodeError: The value is not finite, or a field is of the wrong type.
            BrokerError: The broker accepts no more events.
        """
        group = group_of(experience_id) if group_id is None else group_id
        if not experience_id.startswith(f"{group}/"):
            raise RewardError(f"experience {experience_id!r} is not of group {group!r}")
        if not source:
            raise RewardError("a reward needs a source")
        try:
            text = json.dumps(dict(metadata or {}), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RewardError(f"metadata is not JSON: {error}") from error
        self._writer.send(
            "rewards", Reward(experience_id, group, source, float(value), int(time.time() * 1000), revision, text)
        )

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when all rewards are on the log. Raises BrokerError if any is not, or not in time."""
        self._writer.flush(self._flush_timeout_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Flush and disconnect. Raises BrokerError as ``flush`` does."""
        try:
            self.flush()
        finally:
            self._writer.close(timeout_s=1.0)

    def __enter__(self) -> RewardProducer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close()
        except BrokerError as lost:
            assert error is not None
            error.add_note(f"and rewards sent before it may be lost: {lost}")
