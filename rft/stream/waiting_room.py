"""Keeps groups that wait for external rewards, and decides when a group waits no longer. Pure.

The room stores pointers into the log instead of experiences. Rewards may come before or after their experience, twice
and revised. Each group leaves by exactly one :class:`Release`, and stays known as released until its experiences cannot
be read again. Changes are written to the changelog in batches (:class:`SaveWaiting`). An event in the changelog is
done, so a waiting group does not hold back the committed offset.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from rft.errors import DecodeError
from rft.stream.actions import Action, Publish, Received, Release, Resolve, SaveWaiting
from rft.stream.combine import MISSING, combine_rewards, missing_sources
from rft.stream.dedupe import ReleasedGroups
from rft.stream.deleted_samples import deleted_samples
from rft.stream.pending_sample import PendingSample
from rft.stream.release import GroupPublisher
from rft.stream.rules import Rules
from rft.stream.sample_rows import by_sample, place
from rft.stream.validate import MAX_SUFFIX, check_group_size
from rft.stream.waiting_samples import (
    PRODUCER_REVISION,
    WaitingSample,
    arrived,
    known_ids,
    rows_of,
    sample_of,
    samples_of,
    suffix_of,
    unused_rewards,
    with_reward,
)
from rft.stream.waiting_store import WaitingStore
from schemas.codec import encode
from schemas.events import Experience, ExternalReward, Reward, Waiting, WaitingMember

MAX_GROUP_SIZE = 4096
"""Samples of a waiting group: its state is one event, which is written again whenever anything comes for the group."""
RELEASES_A_TICK = 256
NEVER = -(2**62)


class WaitingRoom:
    """Keeps one worker's waiting groups, by partition. A :class:`~rft.stream.pipeline.GroupKeeper`. Not thread-safe."""

    def __init__(self, rules: Rules, released: ReleasedGroups, publisher: GroupPublisher, counts: Counter[str]) -> None:
        self._rules = rules
        self._config = rules.config.external
        self._samples_ms = int(rules.config.group_deadline_s * 1000)
        self._rewards_ms = int(self._config.deadline_s * 1000)
        self._sources = frozenset((*self._config.required, *self._config.optional))
        self._max_group_size = max(1, min(MAX_GROUP_SIZE, rules.max_event_bytes // 1024))
        self._released = released
        self._publisher = publisher
        self._counts = counts
        self._stores: dict[int, WaitingStore] = {}
        self._markers: dict[int, dict[str, int]] = {}
        """Groups that the changelog marks as released, with the offset after their last experience; by partition."""
        self._expiring: dict[int, dict[str, int]] = {}
        """Those of them whose own events cannot be read again, with the time (ms) until which copies may come."""

    def __len__(self) -> int:
        return sum(map(len, self._stores.values()))

    def first_groups(self, count: int) -> list[str]:
        """Return the ids of some groups that wait, at most ``count``."""
        keys = itertools.chain.from_iterable(store.keys() for store in self._stores.values())
        return [key.decode(errors="replace") for key in itertools.islice(keys, count)]

    def restore(self, partition: int, groups: Iterable[Waiting]) -> None:
        """Start a partition with the groups in its changelog. Its deadlines are paused until ``resume_deadlines``."""
        store = WaitingStore(self._samples_ms, self._rewards_ms, deadlines_paused=True)
        self._stores[partition] = store
        self._markers[partition], self._expiring[partition] = {}, {}
        for group in groups:
            if group.released:
                self._mark_released(group)
                self.release_saved(partition, group)
                continue
            key = group.group_id.encode()
            store.restore(key, group)
            store.schedule(key, group.since)
            if not group.group_size:
                store.reward_only[key] = None
            elif self._is_done(group, NEVER):
                store.deadlines[0].add(key, 0)

    def resume_deadlines(self, partition: int) -> None:
        """Let deadlines count: every event that was on the log at ``restore`` has been received."""
        self._stores[partition].resume_deadlines()

    def pause_deadlines(self, partition: int) -> None:
        """Let no deadline count until ``resume_deadlines``: events that came in time may still be unread."""
        self._store(partition).deadlines_paused = True

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget revoked partitions: their next owner reads the changelog."""
        for partition in partitions:
            self._stores.pop(partition, None)
            self._markers.pop(partition, None)
            self._expiring.pop(partition, None)

    def release_saved(self, partition: int, group: Waiting) -> None:
        """Note that the changelog marks this group as released."""
        if partition in self._markers:
            end = 1 + max((sample.offset for sample in group.members), default=-1)
            self._markers[partition][group.group_id] = end

    def committed(self, partition: int, offset: int, now_ms: int) -> list[SaveWaiting]:
        """Delete the markers of released groups that cannot come again.

        A marker is deleted ``group_deadline_s`` after all its experiences lie before the committed ``offset``: until
        then a repeated rollout may bring copies of them.
        """
        markers, expiring = self._markers.get(partition, {}), self._expiring.get(partition, {})
        for group_id in [group_id for group_id, end in markers.items() if end <= offset]:
            del markers[group_id]
            expiring[group_id] = now_ms + self._samples_ms
        expired = []
        for group_id, until in expiring.items():  # in the order of their times
            if until > now_ms:
                break
            expired.append(group_id)
        for group_id in expired:
            del expiring[group_id]
        return [SaveWaiting(partition, group_id, None) for group_id in expired]

    def check(self, partition: int, experience: Experience) -> None:
        """Check that the experience is small enough to wait and agrees with its group. Raises DecodeError."""
        if experience.group_size > self._max_group_size:
            raise DecodeError(
                f"is {experience.group_size}; a group that waits for external rewards has at most "
                f"{self._max_group_size} samples",
                field="group_size",
            )
        suffix = suffix_of(experience.experience_id, experience.group_id)
        if len(suffix) > MAX_SUFFIX:
            raise DecodeError(f"is more than {MAX_SUFFIX} longer than its group_id", field="experience_id")
        group = self._store(partition).get(experience.group_id.encode())
        if group is None or not group.group_size:
            return
        check_group_size(experience, group.group_size)
        rows = {one.suffix for one in arrived(group)} if experience.rows > 1 else set()
        if len(rows) >= self._max_group_size and suffix not in rows:
            raise DecodeError(
                f"is {experience.rows}; a group that waits for external rewards has at most {self._max_group_size} "
                "rows, those of all its samples together",
                field="rows",
            )

    def repetition(self, partition: int, offset: int, experience: Experience) -> Literal["duplicate", "late"] | None:
        """Return why the experience has nothing left to do; None when it is to be added."""
        group_id = experience.group_id
        after_release = self._released.repetition(group_id, experience.experience_id, experience.sample_id)
        if after_release is not None:
            return after_release
        group = self._store(partition).get(group_id.encode())
        if group is None:
            return None
        sample = rows_of(group, suffix_of(experience.sample_id, group_id))
        if sample is not None:
            return "duplicate" if place(sample.held, experience, offset) == "duplicate" else None
        return "late" if group.group_size and _complete(group, samples_of(group)) else None

    def add(self, sample: PendingSample, published_ms: int, now_ms: int) -> list[Action]:
        """Add a sample that is no repetition, together with the rewards that came before it."""
        experience, store = sample.experience, self._store(sample.partition)
        key = experience.group_id.encode()
        group = store.get(key)
        if group is None or not group.group_size:
            early = group.members if group else ()
            group = Waiting(experience.group_id, experience.group_size, published_ms, early)
            store.reward_only.pop(key, None)
            store.schedule(key, published_ms)
        suffix = suffix_of(experience.experience_id, experience.group_id)
        held = rows_of(group, suffix_of(experience.sample_id, experience.group_id))
        replaced = held.rows if held and place(held.held, experience, sample.offset) == "replace" else ()
        kept = tuple(one for one in group.members if one not in replaced)
        rewarded = next((one for one in kept if one.suffix == suffix), None)
        others = tuple(one for one in kept if one is not rewarded)
        self._counts["duplicate"] += len(replaced)
        waiting = WaitingMember(
            suffix,
            sample.offset,
            sample.size_bytes,
            sample.cause,
            experience.kind != "rollout",
            sample.reward,
            sample.rewards,
            self._external(experience, () if rewarded is None else rewarded.external),
            experience.rows,
            experience.attempt,
        )
        group = replace(group, members=(*others, waiting))
        store.put(key, group).experiences.append(sample.offset)
        return self._release_if_done(sample.partition, store, group, now_ms)

    def add_reward(self, event: Received, reward: Reward, published_ms: int, now_ms: int) -> list[Action]:
        """Add a reward to its sample, or keep it until its experience comes."""
        if reward.source not in self._sources:
            return self._resolve(event, "unclaimed", "unknown_source")
        if self._released.repetition(reward.group_id) is not None:
            # The reward stays in `rewards`, for a replay with the latest revisions.
            return self._resolve(event, "late", "after_release")
        store, key = self._store(event.partition), reward.group_id.encode()
        group = store.get(key)
        suffix = suffix_of(reward.experience_id, reward.group_id)
        sample = next((one for one in group.members if one.suffix == suffix), None) if group else None
        earlier = next((one for one in sample.external if one.source == reward.source), None) if sample else None
        if earlier is not None and earlier.revision >= reward.revision:
            return self._resolve(event, "duplicate", "duplicate")
        if group is not None and sample is None and len(group.members) >= 2 * self._max_group_size:
            return self._resolve(event, "unclaimed", "unclaimed")
        came = group is not None and any(suffix in (one.suffix, sample_of(one)) for one in arrived(group))
        self._counts["reward:" + ("revised" if earlier else "joined" if came else "early")] += 1
        actions: list[Action] = []
        if group is None:
            group = Waiting(reward.group_id, 0, published_ms, ())
            store.reward_only[key] = None
            store.schedule(key, published_ms)
        group = replace(group, members=with_reward(group.members, suffix, reward))
        store.put(key, group).rewards.append(event.offset)
        if len(store.reward_only) > self._config.max_early:
            actions.append(self._drop_reward_only(event.partition, store, next(iter(store.reward_only))))
        return actions + self._release_if_done(event.partition, store, group, now_ms)

    def tick(self, now_ms: int) -> list[Action]:
        """Release the groups whose deadline has passed, at most a few hundred at once."""
        actions: list[Action] = []
        for partition, store in self._stores.items():
            for queue in () if store.deadlines_paused else store.deadlines:
                while len(actions) < RELEASES_A_TICK and (key := queue.pop(now_ms)) is not None:
                    actions += self._at_deadline(partition, store, key, now_ms)
        return actions

    def flush(self) -> list[SaveWaiting]:
        """Return everything that the changelog does not contain yet."""
        return [
            SaveWaiting(partition, dirty.waiting.group_id, encoded, tuple(dirty.experiences), tuple(dirty.rewards))
            for partition, store in self._stores.items()
            for dirty, encoded in store.flush()
        ]

    def publish(self, release: Release, events: Mapping[int, Received], now_ms: int) -> Publish:
        """Publish a group that waits no longer.

        Args:
            events: The events of its experiences by offset. A sample whose event is missing is left out.
        """
        group, rows = release.waiting, list[PendingSample]()
        for sample in samples_of(group):
            reward, rewards, cause = combine_rewards(sample.whole, self._config, bool(self._rules.config.rewards))
            for one in sample.rows:
                if one.offset in events:
                    experience = self._rules.decode(events[one.offset], Experience)
                    pending = PendingSample(experience, release.partition, one.offset, one.size_bytes, cause)
                    rows.append(replace(pending, reward=reward, rewards=rewards))
        rows = [row for sample in by_sample(rows).values() for row in sample.finished()]
        if not rows:
            # The task must retire all the same: without an event of its number, the conductor would wait for it.
            rows = list(deleted_samples(group, release.partition))
        discard = self._config.on_missing == "discard" and any(one.cause == MISSING for one in rows)
        cause = MISSING if discard else None
        return self._publisher.publish(release.partition, group.group_id, rows, now_ms, cause)

    def withdraw(self, unpublished: Iterable[Release]) -> None:
        """Forget releases that will not be published because their partitions were revoked."""
        for release in unpublished:
            self._released.discard(release.waiting.group_id)

    def _at_deadline(self, partition: int, store: WaitingStore, key: bytes, now_ms: int) -> list[Action]:
        group = store.get(key)
        if group is None:
            return []
        if group.group_size:
            return self._release_if_done(partition, store, group, now_ms)
        return [self._drop_reward_only(partition, store, key)] if now_ms >= group.since + self._rewards_ms else []

    def _release_if_done(self, partition: int, store: WaitingStore, group: Waiting, now_ms: int) -> list[Action]:
        if not self._is_done(group, NEVER if store.deadlines_paused else now_ms):
            return []
        dirty = store.remove(group.group_id.encode())
        complete = self._mark_released(group)
        lacking = [one for one in samples_of(group) if missing_sources(one.whole, self._config)]
        unrewarded = tuple(row.offset for sample in lacking for row in sample.rows)
        self._counts["expired"] += bool(unrewarded) or not complete
        self._counts["reward:unclaimed"] += unused_rewards(group)
        letters = unrewarded if self._config.on_missing == "dead_letter" else ()
        pointers = tuple(replace(one, rewards={}, external=()) for one in arrived(group))
        marker = encode(replace(group, members=pointers, released=True))
        return [Release(partition, group, marker, tuple(dirty.experiences), tuple(dirty.rewards), letters)]

    def _mark_released(self, group: Waiting) -> bool:
        """Recognize the group's events from now on. Return True if all its samples have come."""
        complete = _complete(group, samples_of(group))
        self._released.add(group.group_id, known_ids(group), whole=complete)
        return complete

    def _is_done(self, group: Waiting, now_ms: int) -> bool:
        in_time = now_ms < group.since + self._samples_ms
        if in_time and len(group.members) < group.group_size:
            return False
        samples = samples_of(group)
        if not samples or (in_time and not _complete(group, samples)):
            return False
        if now_ms >= group.since + self._rewards_ms:
            return True
        return not any(missing_sources(one.whole, self._config) for one in samples)

    def _external(self, experience: Experience, early: tuple[ExternalReward, ...]) -> tuple[ExternalReward, ...]:
        """Return the rewards of a row: those that came before it, and those of external sources that came with it."""
        sources = self._sources - {one.source for one in early}
        named = ((name, value) for name, value in experience.rewards.items() if name in sources)
        return (*early, *(ExternalReward(name, value, PRODUCER_REVISION) for name, value in named))

    def _drop_reward_only(self, partition: int, store: WaitingStore, key: bytes) -> SaveWaiting:
        """Forget a group of which only rewards have come."""
        dirty = store.remove(key)
        self._counts["reward:unclaimed"] += len(dirty.waiting.members)
        return SaveWaiting(partition, dirty.waiting.group_id, None, (), tuple(dirty.rewards))

    def _resolve(self, event: Received, cause: Literal["duplicate", "late", "unclaimed"], count: str) -> list[Action]:
        self._counts[f"reward:{count}"] += 1
        return [Resolve(event.partition, event.offset, cause, "rewards")]

    def _store(self, partition: int) -> WaitingStore:
        if partition not in self._stores:
            self._stores[partition] = WaitingStore(self._samples_ms, self._rewards_ms)
        return self._stores[partition]


def _complete(group: Waiting, samples: Collection[WaitingSample]) -> bool:
    """Return whether all rows of all samples have come."""
    return len(samples) >= group.group_size and sum(one.complete for one in samples) >= group.group_size
