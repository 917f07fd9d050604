"""The whole way of an experience: validate → deduplicate → clean → score → group → prioritise → publish.

A :class:`Pipeline` holds the state of one worker and does no I/O: events and the time go in, actions come out.
Each received event is named by exactly one outcome (a ``Publish``, a final ``DeadLetter`` or a ``Resolve``), possibly
much later; the shell acknowledges the event when that outcome is on the log, and not before.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rft.config import ProcessorConfig
from rft.errors import DecodeError, RewardError
from rft.stream.actions import Action, DeadLetter, Publish, Received, Resolve, Stage
from rft.stream.clean import filter_cause
from rft.stream.dedupe import ReleasedGroups
from rft.stream.group import Group, Member, OpenGroups, group_cause, release, usable_rewards
from rft.stream.prioritise import Prioritiser, priority
from rft.stream.score import Scorer, score
from rft.stream.validate import validate
from schemas.codec import decode
from schemas.events import Experience
from schemas.framing import SchemaLookup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """What a pipeline decides by."""

    config: ProcessorConfig
    scorer: Scorer
    prioritiser: Prioritiser
    max_event_bytes: int
    """Larger events are malformed."""
    writer_schemas: SchemaLookup | None = None
    """Finds schemas that events name by a registry's id, among those known already: the pipeline asks nobody."""


class Pipeline:
    """One worker's state and its decisions. Not thread-safe."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._deadline_ms = int(rules.config.group_deadline_s * 1000)
        self._max_bytes = int(rules.config.buffer_mb * 1024 * 1024)
        self._released = ReleasedGroups()
        self.groups = OpenGroups()
        self.counts: Counter[str] = Counter()
        """Since start: ``in``, ``ready``, ``filtered:<cause>``, ``duplicate``, ``late``, ``dead:<stage>``,
        ``groups``, ``expired`` (groups released at their deadline), ``early`` (for want of memory), ``forgotten``."""

    def receive(self, event: Received, now_ms: int) -> list[Action]:
        """Decide about one event.

        Args:
            now_ms: The time, in ms; a group's deadline counts from its first member's arrival.
        """
        self.counts["in"] += 1
        try:
            experience = decode(
                event.value or b"",
                Experience,
                max_bytes=self._rules.max_event_bytes,
                writer_schemas=self._rules.writer_schemas,
                headers=event.headers,
            )
        except Exception as error:  # whatever bytes may do to a decoder, it is the event that is at fault
            return [self._dead_letter(event, "decode", error)]
        try:
            validate(experience, event.key)
        except DecodeError as error:
            return [self._dead_letter(event, "validate", error)]
        return self._accept(event, experience, now_ms)

    def tick(self, now_ms: int) -> list[Action]:
        """Release the groups whose deadline has come."""
        due = self.groups.expired(now_ms)
        self.counts["expired"] += len(due)
        return [self._release(group, now_ms) for group in due]

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget the open groups of partitions that were taken away: whoever has them next gets their events again.

        What was released stays known, so that redelivered members of it are still recognised.
        """
        self.counts["forgotten"] += self.groups.forget(partitions)

    def _accept(self, event: Received, experience: Experience, now_ms: int) -> list[Action]:
        group = self.groups.get(event.partition, experience.group_id)
        if group is not None and experience.experience_id in group.members:
            return [self._resolve(event, "duplicate")]
        if group is None:
            repetition = self._released.repetition(experience.group_id, experience.experience_id)
            if repetition is not None:
                return [self._resolve(event, repetition)]

        member, failure = self._judge(event, experience)
        actions: list[Action] = [] if failure is None else [failure]
        group = self.groups.add(event.partition, member, now_ms + self._deadline_ms)
        if group.whole:
            actions.append(self._release(group, now_ms))
        return actions + self._shed(now_ms)

    def _judge(self, event: Received, experience: Experience) -> tuple[Member, DeadLetter | None]:
        size = len(event.value or b"")
        cause = filter_cause(experience, self._rules.config)
        if cause is not None:
            return Member(experience, event.offset, size, cause), None
        try:
            reward, rewards = score(experience, self._rules.scorer)
        except RewardError as error:
            # Also a filtered member: a group whose members all fail must still be heard of, or its task never retires.
            return Member(experience, event.offset, size, "score_failed"), self._dead_letter(event, "score", error)
        return Member(experience, event.offset, size, None, reward, rewards), None

    def _shed(self, now_ms: int) -> list[Action]:
        """Release the oldest groups early when all that wait are more than may be held in memory."""
        actions: list[Action] = []
        while self.groups.size_bytes > self._max_bytes and (oldest := self.groups.oldest()) is not None:
            self.counts["early"] += 1
            actions.append(self._release(oldest, now_ms))
        return actions

    def _release(self, group: Group, now_ms: int) -> Publish:
        cause = group_cause(group, self._rules.config)
        try:
            urgency = priority(usable_rewards(group), self._rules.prioritiser)
        except RewardError as error:
            self.counts["priority_failed"] += 1
            logger.warning("group %s gets priority 0: %s", group.group_id, error)
            urgency = 0.0
        members = release(group, cause, urgency, now_ms)
        size = group.size_bytes
        self.groups.close(group)
        self._released.add(group.group_id, group.members, whole=group.whole)
        self.counts["groups"] += 1
        for member in members:
            self.counts["ready" if member.cause is None else f"filtered:{member.cause}"] += 1
        offsets = tuple(member.offset for member in group.members.values())
        return Publish(group.partition, group.group_id, members, offsets, size)

    def _resolve(self, event: Received, cause: Literal["duplicate", "late"]) -> Resolve:
        self.counts[cause] += 1
        return Resolve(event.partition, event.offset, cause)

    def _dead_letter(self, event: Received, stage: Stage, error: Exception) -> DeadLetter:
        self.counts[f"dead:{stage}"] += 1
        return DeadLetter(event.partition, event.offset, stage, error, final=stage != "score")
