"""Groups are reused and mixed as configured, and the pool follows from the recorded steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rft.config import BufferConfig, Config
from rft.training.buffer import GroupBuffer
from rft.training.priority import make_priority
from rft.training.progress import Retired
from rft.training.reuse_pool import ReusePool
from rft.training.sample import Payload, Sample
from rft.training.step_assembly import StepAssembly


def sample(number: int, kind: str = "rollout", version: int = 0, reward: float = 0.0, member: int = 0) -> Sample:
    """Make sample ``member`` of the group ``number``, at offset 100 · number + member."""
    tokens = np.zeros(4, np.int32)
    payload = Payload(tokens, np.ones(4, np.uint8), np.zeros(4, np.float32), tokens)
    group = f"{kind}-{number}"
    own = number if kind == "rollout" else -1
    oldest = version if kind == "rollout" else -1
    return Sample(0, 100 * number + member, f"{group}/{member}", group, own, "r", 1, False, reward, 0.0, 1.0, oldest,
                  payload, kind=kind)  # fmt: skip


def assembled(config: BufferConfig, groups: int) -> tuple[GroupBuffer, ReusePool, StepAssembly]:
    priority = make_priority(config)
    kinds = {kind for kind, share in config.mix.items() if share} or None
    buffer = GroupBuffer(1 << 30, Retired(), lambda group: priority(group.facts), kinds)
    pool = ReusePool(config, lambda group: priority(group.facts), 0)
    return buffer, pool, StepAssembly(config, groups, buffer, pool)


def step(assembly: StepAssembly, pool: ReusePool) -> list[Sample]:
    samples = [one for group in assembly.take() for one in group.trainable]
    pool.add_trained(samples)
    return samples


def test_each_epoch_trains_every_group_once_up_to_reuse_times() -> None:
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
    assert not assembly.possible()  # one of two demonstrations has arrived
    buffer.add(sample(1, "demonstration"))
    sources = []
    while assembly.possible():
        batch = step(assembly, pool)
        kinds = [one.kind for one in batch]
        again = sum(one.kind == "rollout" and one.uses > 1 for one in batch)
        sources.append((kinds.count("rollout") - again, again, kinds.count("demonstration")))
    assert sources[0] == (4, 0, 2)  # nothing was trained before
    assert sources[1:] == [(4, 2, 2)] * 9
    assert pool.count("demonstration") == 2  # used again and again
    buffer.add(sample(5, "preference"))
    drops, _, _ = buffer.take_drops()
    assert [(drop.sample.group_id, drop.cause) for drop in drops] == [("preference-5", "unwanted")]


def test_groups_that_are_too_stale_are_not_replayed() -> None:
    _, pool, _ = assembled(BufferConfig(reuse=5), groups=1)
    pool.add_trained([sample(1, version=3), sample(2, version=5), sample(3, "demonstration")])
    pool.drop_stale(7, 3)
    assert {group.group_id for group in pool.best(None, 9)} == {"rollout-2", "demonstration-3"}


def test_arrays_beyond_the_bound_are_released_and_the_groups_stay() -> None:
    _, pool, _ = assembled(BufferConfig(reuse=5), groups=1)
    pool.add_trained([sample(number) for number in range(10)])
    size = pool.held_bytes // 10
    pool.trim(4 * size)
    assert pool.held_bytes == 4 * size
    groups = pool.best(None, 10)
    assert len(groups) == 10
    assert sum(one.payload is None for group in groups for one in group.trainable) == 6


@given(st.lists(st.lists(st.integers(0, 9), max_size=4, unique=True), max_size=20), st.integers(0, 20))
def test_a_pool_restored_from_a_checkpoint_equals_the_undisturbed_one(steps: list[list[int]], at: int) -> None:
    config = BufferConfig(reuse=3)
    uses: dict[int, int] = {}
    recorded = []
    for chosen in steps:
        batch = [(number, uses.get(number, 0)) for number in chosen if uses.get(number, 0) < 3]
        uses |= {number: times + 1 for number, times in batch}
        recorded.append(batch)

    def redo(pool: ReusePool, batches: list[list[tuple[int, int]]]) -> None:
        for batch in batches:
            samples = [sample(number) for number, _ in batch]
            for one, (_, times) in zip(samples, batch, strict=True):
                one.uses = times
            pool.add_trained(samples)

    _, undisturbed, _ = assembled(config, 1)
    redo(undisturbed, recorded)
    _, before, _ = assembled(config, 1)
    redo(before, recorded[:at])
    _, after, _ = assembled(config, 1)
    restored = []
    for _, offset, times in before.positions:
        one = sample(offset // 100)
        one.uses = times
        restored.append(one)
    after.restore(restored)
    redo(after, recorded[at:])
    assert after.positions == undisturbed.positions
    names = [[group.group_id for group in pool.best(None, 99)] for pool in (after, undisturbed)]
    assert names[0] == names[1]


@given(st.dictionaries(st.sampled_from(["rollout", "replay", "demonstration", "preference"]),
                       st.floats(0.01, 100), min_size=1), st.integers(1, 500))  # fmt: skip
def test_shares_sum_up_and_none_is_off_by_a_whole_group(mix: dict[str, float], groups: int) -> None:
    shares = BufferConfig(mix=mix, reuse=2).shares(groups)
    assert sum(shares.values()) == groups
    total = sum(mix.values())
    assert all(abs(shares[name] - groups * share / total) < 1 for name, share in mix.items())


def test_reuse_without_a_mixture_is_refused_if_tasks_are_issued() -> None:
    with pytest.raises(ValidationError, match=r"buffer\.reuse > 1 needs buffer\.mix"):
        Config.model_validate({"buffer": {"reuse": 2}})
    with pytest.raises(ValidationError, match="needs reuse = 2 or more"):
        BufferConfig(mix={"rollout": 1, "replay": 1})
    paced = Config.model_validate(
        {"buffer": {"reuse": 2, "mix": {"rollout": 0.75, "replay": 0.25}}, "trainer": {"groups_per_step": 16}}
    )
    assert paced.pacing_bound == 2 * 12
