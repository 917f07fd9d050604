"""Groups that wait for external rewards: which experiences and rewards have come, and when a group waits no longer.

Pure. Experiences are remembered as pointers into the log; rewards may come before them, after them, twice and revised.
Each group leaves by exactly one :class:`Release`, and is known as released until its experiences cannot come again.
What changes is written to the changelog (:class:`Remember`) in batches; an event that the changelog tells of is done
with, so that no partition's position waits for a group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from rft.config import ProcessorConfig
from rft.errors import DecodeError
from rft.stream.actions import Action, Received, Release, Remember, Resolve
from rft.stream.combine import lacking
from rft.stream.dedupe import ReleasedGroups
from rft.stream.waiting_store import WaitingStore
from schemas.codec import encode
from schemas.events import Experience, ExternalReward, Reward, Waiting, WaitingMember

MAX_MEMBERS = 4096
"""Of a waiting group: its state is one event, written again when anything comes for it."""
MAX_SUFFIX = 256
"""Length of an experience_id beyond its group's."""
RELEASES_A_TICK = 256
NEVER = -(2**62)


class WaitingRoom:
    """One worker's waiting groups, by partition. Not thread-safe."""

    def __init__(
        self, config: ProcessorConfig, released: ReleasedGroups, counts: Counter[str], max_event_bytes: int
    ) -> None:
        self._config = config.external
        self._members_ms = int(config.group_deadline_s * 1000)
        self._rewards_ms = int(config.external.deadline_s * 1000)
        self._sources = frozenset((*config.external.required, *config.external.optional))
        self._max_members = max(1, min(MAX_MEMBERS, max_event_bytes // 1024))
        self._released = released
        self._counts = counts
        self._shelves: dict[int, WaitingStore] = {}
        self._markers: dict[int, dict[str, int]] = {}
        """Groups that the changelog knows as released, with the offset after their last experience; by partition."""
        self._fading: dict[int, dict[str, int]] = {}
        """Those of them whose own events cannot come again, with the time (ms) until which copies are expected."""

    def __len__(self) -> int:
        return sum(map(len, self._shelves.values()))

    @property
    def unsaved(self) -> int:
        """Groups that the changelog is behind with."""
        return sum(len(shelf.unsaved) for shelf in self._shelves.values())

    def restore(self, partition: int, groups: Iterable[Waiting]) -> None:
        """Begin with a partition: with what its changelog holds. Its deadlines rest until ``caught_up``."""
        shelf = self._shelves[partition] = self._new_shelf()
        shelf.held = True
        self._markers[partition], self._fading[partition] = {}, {}
        for waiting in groups:
            if waiting.released:
                self._remember_release(waiting)
                self.marked(partition, waiting)
                continue
            key = waiting.group_id.encode()
            shelf.restore(key, waiting)
            shelf.schedule(key, waiting.since)
            if not waiting.group_size:
                shelf.early[key] = None
            elif self._done(waiting, NEVER):
                shelf.wheels[0].add(key, 0)

    def caught_up(self, partition: int) -> None:
        """All has been received that was on the log when the partition was restored: deadlines count."""
        self._shelves[partition].held = False

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget partitions that were taken away: whoever has them next reads the changelog."""
        for partition in partitions:
            self._shelves.pop(partition, None)
            self._markers.pop(partition, None)
            self._fading.pop(partition, None)

    def marked(self, partition: int, waiting: Waiting) -> None:
        """The changelog says that this group has been released."""
        if partition in self._markers:
            end = 1 + max((member.offset for member in waiting.members), default=-1)
            self._markers[partition][waiting.group_id] = end

    def committed(self, partition: int, offset: int, now_ms: int) -> list[Remember]:
        """Forget the released groups whose experiences are all before ``offset``, when no copy of them is to be
        expected any more: rollouts that are done again come within ``group_deadline_s``."""
        markers, fading = self._markers.get(partition, {}), self._fading.get(partition, {})
        for group_id in [group_id for group_id, end in markers.items() if end <= offset]:
            del markers[group_id]
            fading[group_id] = now_ms + self._members_ms
        gone = []
        for group_id, until in fading.items():  # in the order of their times
            if until > now_ms:
                break
            gone.append(group_id)
        for group_id in gone:
            del fading[group_id]
        return [Remember(partition, group_id, None) for group_id in gone]

    def check(self, experience: Experience) -> None:
        """Raises DecodeError for an experience that is too large to be kept waiting."""
        if experience.group_size > self._max_members:
            raise DecodeError(
                f"is {experience.group_size}; a group that waits for external rewards has at most {self._max_members}",
                field="group_size",
            )
        if len(experience.experience_id) - len(experience.group_id) - 1 > MAX_SUFFIX:
            raise DecodeError(f"is more than {MAX_SUFFIX} longer than its group_id", field="experience_id")

    def repetition(self, partition: int, experience: Experience) -> Literal["duplicate", "late"] | None:
        """Why an experience of a waiting group has nothing left to do; None when it is to be added."""
        waiting = self._shelf(partition).get(experience.group_id.encode())
        if waiting is None:
            return None
        suffix = _suffix(experience.experience_id, experience.group_id)
        come = [member.suffix for member in waiting.members if member.offset >= 0]
        if suffix in come:
            return "duplicate"
        return "late" if come and len(come) >= waiting.group_size else None

    def experience(
        self, event: Received, experience: Experience, judged: WaitingMember, at_ms: int, now_ms: int
    ) -> list[Action]:
        """Add an experience that is no repetition. ``judged`` is its member, ``at_ms`` when it was published."""
        shelf, key = self._shelf(event.partition), experience.group_id.encode()
        waiting = shelf.get(key)
        if waiting is None or not waiting.group_size:
            members = waiting.members if waiting else ()
            waiting = Waiting(experience.group_id, experience.group_size, at_ms, members)
            shelf.early.pop(key, None)
            shelf.schedule(key, at_ms)
        early = next((member for member in waiting.members if member.suffix == judged.suffix), None)
        others = tuple(member for member in waiting.members if member is not early)
        member = judged if early is None else replace(judged, external=early.external)
        waiting = replace(waiting, members=(*others, member))
        shelf.put(key, waiting).experiences.append(event.offset)
        return self._release_if_done(event.partition, shelf, key, waiting, now_ms)

    def reward(self, event: Received, reward: Reward, at_ms: int, now_ms: int) -> list[Action]:
        """Join a reward. ``at_ms`` is when it was published."""
        if reward.source not in self._sources:
            return self._drop(event, "unasked", "unasked")
        if self._released.repetition(reward.group_id, reward.experience_id) is not None:
            # It stays in `rewards`, for a replay with the latest revisions.
            return self._drop(event, "late", "after_release")
        shelf, key = self._shelf(event.partition), reward.group_id.encode()
        waiting = shelf.get(key)
        suffix = _suffix(reward.experience_id, reward.group_id)
        member = next((m for m in waiting.members if m.suffix == suffix), None) if waiting else None
        known = next((one for one in member.external if one.source == reward.source), None) if member else None
        if known is not None and known.revision >= reward.revision:
            return self._drop(event, "duplicate", "duplicate")
        if waiting is not None and member is None and len(waiting.members) >= 2 * self._max_members:
            return self._drop(event, "unasked", "unclaimed")
        self._counts["reward:" + ("revised" if known else "joined" if member and member.offset >= 0 else "early")] += 1
        actions: list[Action] = []
        if waiting is None:
            waiting = Waiting(reward.group_id, 0, at_ms, ())
            shelf.early[key] = None
            shelf.schedule(key, at_ms)
        waiting = replace(waiting, members=_with(waiting.members, member, suffix, reward))
        shelf.put(key, waiting).rewards.append(event.offset)
        if len(shelf.early) > self._config.max_early:
            actions.append(self._give_up(event.partition, shelf, next(iter(shelf.early))))
        return actions + self._release_if_done(event.partition, shelf, key, waiting, now_ms)

    def tick(self, now_ms: int) -> list[Action]:
        """Release the groups whose deadlines have come, at most a few hundred at once."""
        actions: list[Action] = []
        for partition, shelf in self._shelves.items():
            for wheel in () if shelf.held else shelf.wheels:
                while len(actions) < RELEASES_A_TICK and (key := wheel.pop(now_ms)) is not None:
                    actions += self._due(partition, shelf, key, now_ms)
        return actions

    def save(self) -> list[Remember]:
        """Everything that the changelog does not know yet."""
        return [
            Remember(partition, entry.waiting.group_id, packed, tuple(entry.experiences), tuple(entry.rewards))
            for partition, shelf in self._shelves.items()
            for entry, packed in shelf.save()
        ]

    def _due(self, partition: int, shelf: WaitingStore, key: bytes, now_ms: int) -> list[Action]:
        waiting = shelf.get(key)
        if waiting is None:
            return []
        if waiting.group_size:
            return self._release_if_done(partition, shelf, key, waiting, now_ms)
        return [self._give_up(partition, shelf, key)] if now_ms >= waiting.since + self._rewards_ms else []

    def _release_if_done(
        self, partition: int, shelf: WaitingStore, key: bytes, waiting: Waiting, now_ms: int
    ) -> list[Action]:
        if not self._done(waiting, NEVER if shelf.held else now_ms):
            return []
        _, entry = shelf.take(key)
        come = [member for member in waiting.members if member.offset >= 0]
        whole = self._remember_release(waiting)
        late = [member.offset for member in come if lacking(member, self._config)]
        self._counts["expired"] += bool(late) or not whole
        self._counts["reward:unclaimed"] += len(waiting.members) - len(come)
        letters = tuple(late) if self._config.on_missing == "dead_letter" else ()
        short = tuple(replace(member, rewards={}, external=()) for member in come)
        marker = encode(replace(waiting, members=short, released=True))
        return [Release(partition, waiting, marker, tuple(entry.experiences), tuple(entry.rewards), letters)]

    def _remember_release(self, waiting: Waiting) -> bool:
        """Recognise the group's events from now on; True when all its members had come."""
        come = [f"{waiting.group_id}/{member.suffix}" for member in waiting.members if member.offset >= 0]
        whole = len(come) >= waiting.group_size
        self._released.add(waiting.group_id, come, whole=whole)
        return whole

    def _done(self, waiting: Waiting, now_ms: int) -> bool:
        come = [member for member in waiting.members if member.offset >= 0]
        if not come:
            return False
        if len(come) < waiting.group_size and now_ms < waiting.since + self._members_ms:
            return False
        return now_ms >= waiting.since + self._rewards_ms or not any(lacking(m, self._config) for m in come)

    def _give_up(self, partition: int, shelf: WaitingStore, key: bytes) -> Remember:
        """Forget a group that only rewards have come for."""
        waiting, entry = shelf.take(key)
        self._counts["reward:unclaimed"] += len(waiting.members)
        return Remember(partition, waiting.group_id, None, (), tuple(entry.rewards))

    def _drop(self, event: Received, cause: Literal["duplicate", "late", "unasked"], count: str) -> list[Action]:
        self._counts[f"reward:{count}"] += 1
        return [Resolve(event.partition, event.offset, cause, "rewards")]

    def _shelf(self, partition: int) -> WaitingStore:
        if partition not in self._shelves:
            self._shelves[partition] = self._new_shelf()
        return self._shelves[partition]

    def _new_shelf(self) -> WaitingStore:
        return WaitingStore(self._members_ms, self._rewards_ms)


def check_reward(reward: Reward, key: bytes | None) -> None:
    """Check what the schema cannot say. Raises DecodeError with the field at fault."""
    if not reward.group_id:
        raise DecodeError("is empty", field="group_id")
    if key != reward.group_id.encode():
        raise DecodeError(f"is not the group_id, {reward.group_id[:80]!r}", field="key")
    if not reward.experience_id.startswith(f"{reward.group_id}/"):
        raise DecodeError(f"does not begin with {reward.group_id[:80] + '/'!r}", field="experience_id")
    if len(reward.experience_id) - len(reward.group_id) - 1 > MAX_SUFFIX:
        raise DecodeError(f"is more than {MAX_SUFFIX} longer than its group_id", field="experience_id")


def _suffix(experience_id: str, group_id: str) -> str:
    return experience_id[len(group_id) + 1 :]


def _with(
    members: tuple[WaitingMember, ...], member: WaitingMember | None, suffix: str, reward: Reward
) -> tuple[WaitingMember, ...]:
    """The members with a reward joined to one of them, or to a new one that has not come yet."""
    given = ExternalReward(reward.source, reward.value, reward.revision)
    if member is None:
        return (*members, WaitingMember(suffix, -1, 0, None, False, 0.0, {}, (given,)))
    others = tuple(one for one in member.external if one.source != reward.source)
    joined = replace(member, external=(*others, given))
    return tuple(joined if one is member else one for one in members)
