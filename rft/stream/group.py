"""Groups of experiences on their way to be whole, and what a group says when it is released."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rft.config import ProcessorConfig
from schemas.events import Experience, ScoredExperience

LEAST_MEMBERS = {"demonstration": 1, "preference": 2}
"""Usable members that a group of that kind needs, whatever ``processor.min_group_size`` is."""


@dataclass(frozen=True, slots=True)
class Member:
    """One distinct experience of an open group, cleaned and scored."""

    experience: Experience
    offset: int
    size_bytes: int
    cause: str | None
    """Why it is filtered; None when it is usable."""
    reward: float = 0.0
    rewards: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """The members of one group that have come so far."""

    group_id: str
    partition: int
    size: int
    """Members it is to have, as the first of them said."""
    split: str
    deadline_ms: int
    members: dict[str, Member] = field(default_factory=dict)
    """By experience_id, in order of arrival."""

    @property
    def whole(self) -> bool:
        return len(self.members) >= self.size

    @property
    def size_bytes(self) -> int:
        return sum(member.size_bytes for member in self.members.values())


class OpenGroups:
    """Groups that wait for members, oldest first. All have the same time to live, so age is deadline order."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, str], Group] = {}
        self.size_bytes = 0
        """Of all waiting members' events."""

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def get(self, partition: int, group_id: str) -> Group | None:
        return self._groups.get((partition, group_id))

    def add(self, partition: int, member: Member, deadline_ms: int) -> Group:
        """Put a member to its group, which is opened when it is the first, and return the group."""
        experience = member.experience
        key = (partition, experience.group_id)
        group = self._groups.get(key)
        if group is None:
            group = Group(experience.group_id, partition, experience.group_size, experience.split, deadline_ms)
            self._groups[key] = group
        group.members[experience.experience_id] = member
        self.size_bytes += member.size_bytes
        return group

    def close(self, group: Group) -> None:
        del self._groups[group.partition, group.group_id]
        self.size_bytes -= group.size_bytes

    def oldest(self) -> Group | None:
        return next(iter(self._groups.values()), None)

    def expired(self, now_ms: int) -> list[Group]:
        """Groups whose deadline has come, oldest first."""
        due: list[Group] = []
        for group in self._groups.values():
            if group.deadline_ms > now_ms:
                break
            due.append(group)
        return due

    def forget(self, partitions: Iterable[int]) -> int:
        """Drop all groups of these partitions without a word; returns how many. Their new owner gets the events."""
        lost = set(partitions)
        gone = [group for group in self._groups.values() if group.partition in lost]
        for group in gone:
            self.close(group)
        return len(gone)


def usable_rewards(group: Group) -> list[float]:
    """Rewards of the members that are not filtered."""
    return [member.reward for member in group.members.values() if member.cause is None]


def group_cause(group: Group, config: ProcessorConfig) -> str | None:
    """Why the group as a whole is kept out of training; None when it is not. Evaluation groups never are.

    A demonstration stands for itself, a preference needs both its members; only rollouts are compared by reward.
    """
    if group.split == "eval":
        return None
    rewards = usable_rewards(group)
    kind = next(iter(group.members.values())).experience.kind
    if len(rewards) < LEAST_MEMBERS.get(kind, config.min_group_size):
        return "group_too_small"
    if kind == "rollout" and config.drop_uniform_groups and max(rewards) == min(rewards):
        return "uniform"
    return None


def release_id(experience_ids: Iterable[str]) -> str:
    """Digest of the members, whatever their order: the same members released twice have the same id."""
    digest = hashlib.sha256("\n".join(sorted(experience_ids)).encode())
    return digest.hexdigest()[:32]


def release(group: Group, cause: str | None, priority: float, now_ms: int) -> tuple[ScoredExperience, ...]:
    """Every member that has come, with its verdict: its own cause first, else the group's, else ``train``."""
    members: Sequence[Member] = tuple(group.members.values())
    identity = release_id(group.members)
    return tuple(
        ScoredExperience(
            experience=member.experience,
            origin_partition=group.partition,
            origin_offset=member.offset,
            verdict="train" if (member.cause or cause) is None else "filtered",
            cause=member.cause or cause,
            reward=member.reward,
            rewards=member.rewards,
            priority=priority,
            release_id=identity,
            release_size=len(members),
            scored_at=now_ms,
        )
        for member in members
    )
