"""Reuse and mixing: how often a group is trained, in which order, and that both follow from the recorded steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rft.config import BufferConfig, Config
from rft.training.assembly import Assembly
from rft.training.buffer import GroupBuffer
from rft.training.pool import Pool
from rft.training.priority import GroupFacts, make_priority
from rft.training.progress import Retired
from rft.training.sample import Payload, Sample


def sample(number: int, kind: str = "rollout", version: int = 0, reward: float = 0.0, member: int = 0) -> Sample:
    """A member of a group of its own place; its group has as many members as ``member`` says at the end of its id."""
    tokens = np.zeros(4, np.int32)
    payload = Payload(tokens, np.ones(4, np.uint8), np.zeros(4, np.float32), tokens)
    group = f"{kind}-{number}"
    own = number if kind == "rollout" else -1
    oldest = version if kind == "rollout" else -1
    return Sample(0, 100 * number + member, f"{group}/{member}", group, own, "r", 1, False, reward, 0.0, 1.0, oldest,
                  payload, kind=kind)  # fmt: skip


def assembled(config: BufferConfig, groups: int) -> tuple[GroupBuffer, Pool, Assembly]:
    priority = make_priority(config)
    kinds = {kind for kind, share in config.mix.items() if share} or None
    buffer = GroupBuffer(1 << 30, Retired(), lambda group: priority(group.facts), kinds)
    pool = Pool(config, lambda group: priority(group.facts), 0)
    return buffer, pool, Assembly(config, groups, buffer, pool)


def step(assembly: Assembly, pool: Pool) -> list[Sample]:
    samples = [one for group in assembly.take() for one in group.trainable]
    pool.trained(samples)
    return samples


def test_epochs_train_each_group_as_often_as_reuse_says_and_none_again_before_all_were() -> None:
    buffer, pool, assembly = assembled(BufferConfig(reuse=3), groups=4)
    for number in range(12):
        buffer.add(sample(number, "demonstration"))
    epochs = []
    while assembly.possible():
        epochs.append([one.group_id for one in step(assembly, pool)])
    trained = [name for batch in epochs for name in batch]
    assert len(trained) == 36
    for epoch in range(3):
        assert len(set(trained[12 * epoch : 12 * epoch + 12])) == 12
    assert trained[12:24] != trained[24:36] != trained[:12]
    assert len(pool) == 0


def test_a_mixture_has_its_shares_in_every_step_and_waits_for_rollouts_only() -> None:
    config = BufferConfig(mix={"rollout": 0.5, "replay": 0.25, "demonstration": 0.25}, reuse=2)
    buffer, pool, assembly = assembled(config, groups=8)
    buffer.add(sample(0, "demonstration"))
    for number in range(40):
        buffer.add(sample(number))
    assert not assembly.possible()  # of two demonstrations one is there
    buffer.add(sample(1, "demonstration"))
    sources = []
    while assembly.possible():
        batch = step(assembly, pool)
        kinds = [one.kind for one in batch]
        again = sum(one.kind == "rollout" and one.uses > 1 for one in batch)
        sources.append((kinds.count("rollout") - again, again, kinds.count("demonstration")))
    assert sources[0] == (4, 0, 2)  # nothing was trained before
    assert sources[1:] == [(4, 2, 2)] * 9
    assert pool.count("demonstration") == 2  # gone through again and again
    buffer.add(sample(5, "preference"))
    drops, _, _ = buffer.take_drops()
    assert [(drop.sample.group_id, drop.cause) for drop in drops] == [("preference-5", "unwanted")]


def test_what_was_trained_is_not_replayed_once_it_is_too_stale() -> None:
    _, pool, _ = assembled(BufferConfig(reuse=5), groups=1)
    pool.trained([sample(1, version=3), sample(2, version=5), sample(3, "demonstration")])
    pool.drop_stale(7, 3)
    assert {group.group_id for group in pool.best(None, 9)} == {"rollout-2", "demonstration-3"}


def test_arrays_beyond_the_bound_are_let_go_and_the_groups_stay() -> None:
    _, pool, _ = assembled(BufferConfig(reuse=5), groups=1)
    pool.trained([sample(number) for number in range(10)])
    size = pool.held_bytes // 10
    pool.shed(4 * size)
    assert pool.held_bytes == 4 * size
    groups = pool.best(None, 10)
    assert len(groups) == 10
    assert sum(one.payload is None for group in groups for one in group.trainable) == 6


@given(st.lists(st.lists(st.integers(0, 9), max_size=4, unique=True), max_size=20), st.integers(0, 20))
def test_a_pool_from_a_checkpoint_and_the_steps_after_it_is_the_undisturbed_one(
    steps: list[list[int]], at: int
) -> None:
    config = BufferConfig(reuse=3)
    uses: dict[int, int] = {}
    recorded = []
    for chosen in steps:
        batch = [(number, uses.get(number, 0)) for number in chosen if uses.get(number, 0) < 3]
        uses |= {number: times + 1 for number, times in batch}
        recorded.append(batch)

    def redo(pool: Pool, batches: list[list[tuple[int, int]]]) -> None:
        for batch in batches:
            samples = [sample(number) for number, _ in batch]
            for one, (_, times) in zip(samples, batch, strict=True):
                one.uses = times
            pool.trained(samples)

    _, undisturbed, _ = assembled(config, 1)
    redo(undisturbed, recorded)
    _, before, _ = assembled(config, 1)
    redo(before, recorded[:at])
    _, after, _ = assembled(config, 1)
    restored = []
    for _, offset, times in before.places:
        one = sample(offset // 100)
        one.uses = times
        restored.append(one)
    after.restore(restored)
    redo(after, recorded[at:])
    assert after.places == undisturbed.places
    names = [[group.group_id for group in pool.best(None, 99)] for pool in (after, undisturbed)]
    assert names[0] == names[1]


@given(st.dictionaries(st.sampled_from(["rollout", "replay", "demonstration", "preference"]),
                       st.floats(0.01, 100), min_size=1), st.integers(1, 500))  # fmt: skip
def test_shares_sum_up_and_none_is_off_by_a_whole_group(mix: dict[str, float], groups: int) -> None:
    shares = BufferConfig(mix=mix, reuse=2).shares(groups)
    assert sum(shares.values()) == groups
    total = sum(mix.values())
    assert all(abs(shares[name] - groups * share / total) < 1 for name, share in mix.items())


def test_priorities_order_groups_and_decay_with_the_versions() -> None:
    def facts(rewards: list[float], version: int) -> GroupFacts:
        return GroupFacts(rewards, 0.5, version, 1)

    hard, split, easy = facts([0, 0, 0, 0], 4), facts([0, 1, 0, 1], 5), facts([1, 1, 1, 0], 6)

    def order(**config: object) -> list[GroupFacts]:
        return sorted([hard, split, easy], key=make_priority(BufferConfig.model_validate(config)), reverse=True)

    assert order(priority="difficulty") == [hard, split, easy]
    assert order(priority="recency") == [easy, split, hard]
    assert order(priority="staleness") == [hard, split, easy]
    assert order(priority="reward_variance") == [split, easy, hard]
    # Variances 0.25 and 0.1875: one version of half-life 1 outweighs their ratio, one of half-life 10 does not.
    assert order(priority="reward_variance", recency_half_life=1) == [easy, split, hard]
    assert order(priority="reward_variance", recency_half_life=10) == [split, easy, hard]


def test_reuse_without_a_share_is_refused_where_tasks_are_paced() -> None:
    with pytest.raises(ValidationError, match="say how much of a step is replayed"):
        Config.model_validate({"buffer": {"reuse": 2}})
    with pytest.raises(ValidationError, match="needs reuse of 2 or more"):
        BufferConfig(mix={"rollout": 1, "replay": 1})
    paced = Config.model_validate(
        {"buffer": {"reuse": 2, "mix": {"rollout": 0.75, "replay": 0.25}}, "trainer": {"groups_per_step": 16}}
    )
    assert paced.pacing_bound == 2 * 12
