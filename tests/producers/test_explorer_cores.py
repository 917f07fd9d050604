"""What an explorer commits, starts and retries, without a broker or a model."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.explorer import rollouts
from producers.explorer.backlog import Backlog, Delivery
from producers.explorer.pool import LOGGED_FAILURES, RolloutPool
from producers.explorer.rollouts import roll_out
from rft.config import RolloutConfig
from rft.errors import EngineDiedError, RolloutError, StallError
from rft.log.delivery_ledger import DeliveryLedger
from rft.policy.base import Sampling, check_request
from rft.telemetry.notes import role_notes
from rft.workflows import deadline, experiences
from rft.workflows.task_sampling import sampling_of
from rft.workflows.trajectory import Trajectory
from schemas.codec import decode, encode
from schemas.events import Experience, Task


def task(number: int = 0, min_version: int = 0, samples: int = 2) -> Task:
    return Task(f"train-{number:08d}", number, "train", "words", "ab>", "ba", samples, 8, 0.7, 0.9, 5, min_version, 0)


def trajectory(response: str = "ba") -> Trajectory:
    return Trajectory(
        "ab>",
        response,
        np.array([1, 2, 3, 2, 1], np.int32),
        np.array([0, 0, 0, 1, 1], np.uint8),
        np.array([0, 0, 0, -0.5, -0.25], np.float32),
        np.array([-1, -1, -1, 4, 5], np.int32),
        "stop",
    )


# -- the ledger


@given(st.integers(1, 3), st.integers(1, 12), st.integers(0, 10**9))
def test_no_offset_is_committed_past_an_unpublished_experience(partitions: int, tasks: int, seed: int) -> None:
    """However tasks finish and partitions move, unpublished experiences are delivered again."""
    choose = random.Random(seed)
    ledger, committed = DeliveryLedger(), dict.fromkeys(range(partitions), 0)
    size = {(p, o): choose.randint(1, 3) for p in committed for o in range(tasks)}
    left = dict(size)
    next_offset: dict[int, int] = {}
    started: list[tuple[int, int]] = []
    for _ in range(60 * partitions * tasks):
        running = [position for position in started if left[position]]
        match choose.choice(("assign", "lose", "deliver", "publish", "publish", "commit")):
            case "assign":
                p = choose.choice(sorted(committed))
                next_offset.setdefault(p, committed[p])
            case "lose" if next_offset and choose.random() < 0.2:
                p = choose.choice(sorted(next_offset))
                ledger.lost([p])
                del next_offset[p]
            case "deliver" if next_offset:
                p = choose.choice(sorted(next_offset))
                position = (p, next_offset[p])
                if position in size:
                    next_offset[p] += 1
                    if ledger.delivered(*position, size[position]):
                        assert position not in started, "a task that was started here is started again"
                        started.append(position)
            case "publish" if running:
                position = choose.choice(running)
                left[position] -= 1
                ledger.published(*position)
            case "commit":
                offsets = ledger.committable()
                for p, offset in offsets.items():
                    assert p in next_offset
                    assert committed[p] <= offset
                    assert all(left[p, o] == 0 for o in range(offset))
                    committed[p] = offset
                ledger.committed(offsets)
        assert ledger.running == len([position for position in started if left[position]])
    for position in list(started):
        while left[position]:
            left[position] -= 1
            ledger.published(*position)
    for p in committed:
        for offset in range(next_offset.get(p, committed[p]), tasks):
            if ledger.delivered(p, offset, size[p, offset]):
                for _ in range(size[p, offset]):
                    ledger.published(p, offset)
    assert {**committed, **ledger.committable()} == dict.fromkeys(committed, tasks)


def test_a_straggler_holds_back_the_commit_and_nothing_else() -> None:
    ledger = DeliveryLedger()
    assert all(ledger.delivered(0, offset, 1) for offset in range(3))
    ledger.published(0, 1)
    ledger.published(0, 2)
    assert ledger.committable() == {0: 0}
    ledger.published(0, 0)
    assert ledger.committable() == {0: 3}
    ledger.committed({0: 3})
    assert ledger.committable() == {}


def test_the_offset_of_a_partition_that_another_explorer_advanced_is_not_set_back() -> None:
    ledger = DeliveryLedger()
    ledger.delivered(0, 5, 1)
    ledger.lost([0])
    ledger.published(0, 5)
    assert ledger.committable() == {}
    assert ledger.delivered(0, 9, 1)
    assert ledger.committable() == {0: 9}


def test_a_message_that_is_no_task_does_not_hold_back_the_commit() -> None:
    ledger = DeliveryLedger()
    ledger.delivered(0, 0, parts=0)
    assert ledger.committable() == {0: 1}


# -- the backlog


def names(backlog: Backlog, limit: int = 100) -> list[int]:
    taken = []
    while delivery := backlog.pop(0, limit):
        taken.append(delivery.task.number)
    return taken


def test_a_task_that_waits_for_weights_blocks_no_other() -> None:
    backlog = Backlog()
    backlog.set_version(3)
    for number, min_version in enumerate((4, 3, 5, 0, 4)):
        backlog.add(Delivery(0, number, task(number, min_version)))
    assert names(backlog) == [1, 3]
    assert backlog.waiting == 3
    backlog.set_version(4)
    assert backlog.ready_samples == 4
    assert names(backlog) == [0, 4]
    backlog.set_version(9)
    assert names(backlog) == [2]
    assert backlog.ready_samples == 0


def test_nothing_starts_before_the_first_weights() -> None:
    backlog = Backlog()
    backlog.add(Delivery(0, 0, task()))
    assert backlog.pop(0, 100) is None


def test_rollouts_stay_within_the_limit_but_a_large_group_runs_alone() -> None:
    backlog = Backlog()
    backlog.set_version(0)
    backlog.add(Delivery(0, 0, task(samples=8)))
    assert backlog.pop(running=1, limit=4) is None
    assert backlog.pop(running=0, limit=4) is not None


# -- one rollout


class NoPolicy:
    """Workflows of these tests do not generate."""

    version = 0
    stats: dict[str, float] = {}


def try_it(workflow, deadline_s: float = 5.0, retries: int = 2) -> Trajectory:
    rollout = asyncio.run(roll_out(task(), 1, NoPolicy(), workflow, deadline_s=deadline_s, retries=retries))
    return rollout.rows[0]


def test_a_rollout_that_raises_is_tried_again_with_another_seed() -> None:
    seeds: list[int] = []

    async def flaky(_task: Task, _policy: object, sampling: Sampling) -> Trajectory:
        seeds.append(sampling.seed)
        if len(seeds) < 3:
            raise ValueError("no luck")
        return trajectory()

    assert try_it(flaky).response == "ba"
    assert len(set(seeds)) == 3


def test_a_rollout_that_fails_for_good_names_its_cause() -> None:
    async def broken(*_: object) -> Trajectory:
        raise ValueError("no luck")

    with pytest.raises(RolloutError, match=r"3 times.*ValueError: no luck"):
        try_it(broken)


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class PanicError(BaseException):
    """As Rust libraries raise it."""


async def cancelled_by_itself() -> None:
    helper = asyncio.create_task(asyncio.sleep(60))
    helper.cancel()
    await helper


async def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("work", "cause"),
    [
        (cancelled_by_itself, "CancelledError"),
        (lambda: raises(MuteError()), "MuteError: without a message"),
        (lambda: raises(PanicError("rust")), "PanicError: rust"),
        (lambda: raises(SystemExit(3)), "SystemExit: 3"),
        (lambda: raises(KeyboardInterrupt("mine")), "KeyboardInterrupt: mine"),
        (lambda: raises(GeneratorExit("mine")), "GeneratorExit: mine"),
    ],
)
def test_whatever_a_workflow_raises_fails_its_rollout_and_nothing_else(work: Callable[[], Any], cause: str) -> None:
    async def workflow(*_: object) -> Trajectory:
        await work()
        raise AssertionError

    with pytest.raises(RolloutError, match=f"2 times.*{cause}"):
        try_it(workflow, retries=1)


def test_a_rollout_that_is_cancelled_from_outside_stays_cancelled() -> None:
    async def hangs(*_: object) -> Trajectory:
        await asyncio.sleep(60)
        raise AssertionError

    async def main() -> None:
        rollout = asyncio.create_task(roll_out(task(), 1, NoPolicy(), hangs, deadline_s=30, retries=3))
        await asyncio.sleep(0.05)
        rollout.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rollout

    asyncio.run(main())


class Pool:
    """A pool of rollouts that last until the test ends them."""

    def __init__(self, max_in_flight: int = 4) -> None:
        self.published: list[Experience] = []
        self.begun = 0

        async def hangs(*_: object) -> Trajectory:
            self.begun += 1
            await asyncio.sleep(60)
            raise AssertionError

        self.pool = RolloutPool(
            RolloutConfig(max_in_flight=max_in_flight),
            NoPolicy(),
            hangs,
            source="test",
            model="policy",
            publish=lambda _, rows: self.published.extend(rows),
            cancelled=lambda _: None,
        )
        self.pool.set_version(0)


def test_a_pool_that_is_abandoned_starts_nothing_more() -> None:
    async def main() -> None:
        one = Pool()
        spare = Delivery(0, 0, replace(task(samples=1), spare=3))
        one.pool.add([spare, Delivery(0, 1, task(1, samples=4))])
        await asyncio.sleep(0.05)
        assert one.begun == 4
        one.pool.acknowledged(spare, good=True)
        await one.pool.abandon()
        await asyncio.sleep(0.05)
        assert (one.begun, one.pool.running, one.published) == (4, 0, [])

    asyncio.run(main())


def test_failed_rollouts_are_counted_whatever_made_them_fail(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Pool:
        one = Pool()
        for number in range(LOGGED_FAILURES + 30):
            one.pool.count_failure(f"train-{number}/0", RolloutError(f"no server for train-{number}"))
        return one

    before = sum(note.count for note in role_notes().all() if "no server for" in note.text)
    assert asyncio.run(main()).pool.stats["failed"] == LOGGED_FAILURES + 30
    (note,) = [note for note in role_notes().all() if "no server for" in note.text]
    assert (note.level, note.count - before) == ("warning", LOGGED_FAILURES + 30)
    assert len([line for line in caplog.messages if "no server for" in line]) == LOGGED_FAILURES


def test_a_late_acknowledgement_of_a_complete_group_leaves_nothing_behind() -> None:
    async def main() -> None:
        one = Pool()
        spare = Delivery(0, 0, replace(task(samples=2), spare=2))
        one.pool.add([spare])
        await asyncio.sleep(0.05)
        for _ in range(3):
            one.pool.acknowledged(spare, good=True)
        await asyncio.sleep(0.05)
        assert not one.pool._good
        assert one.pool.running == 0

    asyncio.run(main())


def test_a_dead_engine_does_not_fail_the_rollout_so_that_another_explorer_does_it() -> None:
    tries: list[int] = []

    async def dead(*_: object) -> Trajectory:
        tries.append(1)
        raise EngineDiedError("the engine died")

    with pytest.raises(EngineDiedError):
        try_it(dead)
    assert len(tries) == 1


def test_a_request_that_can_never_be_served_is_not_tried_again() -> None:
    tries: list[int] = []

    async def too_long(*_: object) -> Trajectory:
        tries.append(1)
        check_request([1] * 100, Sampling(max_tokens=8), vocabulary=10, context=64)
        raise AssertionError

    with pytest.raises(RolloutError, match=r"not tried again: 100 prompt tokens and max_tokens = 8 exceed"):
        try_it(too_long)
    assert len(tries) == 1


def test_a_rollout_that_hangs_is_abandoned_at_its_deadline() -> None:
    tries: list[int] = []

    async def hangs(*_: object) -> Trajectory:
        tries.append(1)
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(RolloutError, match=r"2 times.*deadline of 0.05 s"):
        try_it(hangs, deadline_s=0.05, retries=1)
    assert len(tries) == 2


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A workflow that catches its cancellation and goes on until the test is over."""
    monkeypatch.setattr(deadline, "GRACE_S", 0.05)
    over: list[bool] = []

    async def workflow(_task: Task, policy: Any, sampling: Sampling) -> Trajectory:
        while not over:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)
        await policy.generate([1], sampling)
        raise AssertionError

    workflow.over = over  # type: ignore[attr-defined]
    yield workflow
    over.append(True)


def test_a_workflow_that_ignores_its_cancellation_is_left_behind_and_generates_nothing_more(stubborn: Any) -> None:
    async def main() -> None:
        with pytest.raises(
            RolloutError, match=r"2 times.*ignores its cancellation in workflow \(.*test_explorer_cores"
        ):
            await roll_out(task(), 1, NoPolicy(), stubborn, deadline_s=0.05, retries=1)
        running = set(rollouts._stuck)
        assert len(running) == 2
        stubborn.over.append(True)
        done, _ = await asyncio.wait(running, timeout=30)
        assert done == running
        assert all("this rollout has ended" in str(one.result()[1]) for one in done)
        await asyncio.sleep(0)
        assert not rollouts._stuck

    asyncio.run(main())


def test_too_many_workflows_that_ignore_their_cancellation_end_the_explorer(
    stubborn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "MAX_STUCK", 2)

    async def main() -> None:
        with pytest.raises(StallError, match=r"3 rollouts run on in this explorer.*ignores its cancellation"):
            await roll_out(task(), 1, NoPolicy(), stubborn, deadline_s=0.05, retries=5)
        stubborn.over.append(True)
        await asyncio.wait(set(rollouts._stuck), timeout=30)

    asyncio.run(main())


def test_samples_and_tries_are_drawn_differently_and_repeatably() -> None:
    drawn = [sampling_of(task(), sample, attempt).seed for sample in range(8) for attempt in range(3)]
    assert len(set(drawn)) == len(drawn)
    assert drawn == [sampling_of(task(), sample, attempt).seed for sample in range(8) for attempt in range(3)]
    assert sampling_of(task(), 0, 0) == Sampling(8, 0.7, 0.9, sampling_of(task(), 0, 0).seed)


# -- experiences


def test_an_experience_holds_all_that_learning_needs() -> None:
    stamp = {"source": "explorer-1", "model": "policy", "now_ms": 7, "duration_ms": 3}
    made = experiences.make_experience(task(4), 1, trajectory(), **stamp)
    assert (made.experience_id, made.group_id, made.number, made.sample) == ("train-00000004/1", "train-00000004", 4, 1)
    assert (made.group_size, made.temperature, made.top_p, made.answer) == (2, 0.7, 0.9, "ba")
    assert made.oldest_version == 4
    assert decode(encode(made), Experience) == made


@pytest.mark.parametrize("cause", ["boom", "x" * 100_000])
def test_a_failed_rollout_is_an_experience_without_tokens(cause: str) -> None:
    stamp: dict[str, object] = {"source": "explorer-1", "model": "policy", "now_ms": 7, "duration_ms": 3}
    made = experiences.make_failed_experience(task(4), 1, RolloutError(cause), **stamp)
    assert (made.finish_reason, made.tokens.size, made.group_size) == ("error", 0, 2)
    assert made.error is not None
    assert cause.startswith(made.error)
    assert len(encode(made)) < 5000


def drawn_ids(tasks: Sequence[Task]) -> set[str]:
    return {experiences.experience_id(t, sample) for t in tasks for sample in range(t.samples)}


def test_experience_ids_are_deterministic_and_distinct() -> None:
    tasks = [task(number) for number in range(5)]
    assert drawn_ids(tasks) == drawn_ids(list(reversed(tasks)))
    assert len(drawn_ids(tasks)) == 10
