"""The conductor's state comes from the log: killed anywhere, it goes on as if nothing had happened."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from producers.conductor.core import Conductor, ConductorInput
from producers.conductor.evaluation import EvaluationPlan
from producers.conductor.pacing import Pace
from producers.conductor.starvation import all_failed, describe_failed_groups, warn_of_starvation
from producers.conductor.task_requests import EvalTaskRequest, TaskRequest, TrainTaskRequest
from rft.config import MAIN_SET, Config
from rft.evaluation.ids import EvalGroup, parse_group_id
from schemas.events import Experience, ScoredExperience, Task, TrainingStep, Waiting, WaitingMember, WeightVersion

MODEL = "policy"
SAMPLES = {MAIN_SET: 1, "hard-1": 3}
"""Answers to each held-out task, by set."""


def task(request: TaskRequest) -> Task:
    if isinstance(request, TrainTaskRequest):
        split, group_id, min_version = "train", f"train-{request.number:08d}", request.min_version
        samples = 1
    else:
        group = EvalGroup(request.version, request.number, request.set_name)
        split, group_id, min_version, samples = "eval", group.group_id, request.version, SAMPLES[request.set_name]
    return Task(group_id, request.number, split, "words", "p>", "a", samples, 8, 1.0, 1.0, 0, min_version, 0)


def weights(version: int, step: int, *, final: bool = False, model: str = MODEL) -> WeightVersion:
    return WeightVersion(model, version, step, "checkpoint", f"weights/v{version:08d}", "", 0, final, 0)


def result(done: Task, reward: float = 1.0, verdict: str = "train", sample: int = 0) -> ScoredExperience:
    size = done.samples
    experience = Experience(
        f"{done.group_id}/{sample}",
        done.group_id,
        done.number,
        sample,
        done.split,
        size,
        "p>",
        "a",
        "a",
        0,
        "explorer",
        MODEL,
    )
    return ScoredExperience(experience, 0, 0, verdict, None, reward, {}, 0.0, "", size, 0)


def waiting(done: Task, *, arrived: int = 1, released: bool = False) -> Waiting:
    members = tuple(WaitingMember("0", offset - 1, 0, None, False, 0.0, {}, ()) for offset in (arrived,))
    return Waiting(done.group_id, done.samples, 0, members, released)


def step_event(step: int, version: int, next_version: int, retired: list[int], kind: str = "step") -> TrainingStep:
    return TrainingStep(MODEL, kind, step, version, next_version, (), (), tuple(retired), "", {}, 0)


class World:
    """The log, and all roles but the conductor: each does anything that it may do next."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.topics: dict[str, list[ConductorInput]] = {
            topic: [] for topic in ("tasks", "weights", "steps", "ready", "waiting")
        }
        self.unread: list[ConductorInput] = []
        self.open: list[Task] = []
        self.rolled_out: dict[int, Task] = {}
        self.versions: dict[int, int] = {}
        """Weight version that each train task was rolled out with."""
        self.waiting: dict[int, Task] = {}
        """Groups that wait for external rewards."""
        self.unrewarded: set[int] = set()
        """Those of them whose rewards never come."""
        self.step = self.version = 0
        self.log("weights", weights(0, 0))

    def log(self, topic: str, event: ConductorInput) -> None:
        self.topics[topic].append(event)
        self.unread.append(event)

    def issue(self, requests: list[TaskRequest]) -> None:
        for request in requests:
            self.log("tasks", task(request))
            self.open.append(task(request))

    def explore(self, choose: random.Random) -> None:
        able = [t for t in self.open if t.min_version <= self.version]
        for done in choose.sample(able, choose.randint(0, len(able))):
            self.open.remove(done)
            if done.split == "eval":
                for sample in range(done.samples):
                    self.log("ready", result(done, verdict=choose.choice(("train", "filtered")), sample=sample))
                continue
            self.versions[done.number] = self.version
            if self.pace.free_waiting and choose.random() < 0.5:
                self.log("waiting", waiting(done, arrived=0))
                self.log("waiting", waiting(done))
                self.waiting[done.number] = done
                if len(self.unrewarded) < self.pace.free_waiting and choose.random() < 0.3:
                    self.unrewarded.add(done.number)
            else:
                self.rolled_out[done.number] = done
        for number in sorted(self.waiting.keys() - self.unrewarded):
            if choose.random() < 0.3:
                self.rolled_out[number] = self.waiting.pop(number)
                self.log("waiting", waiting(self.rolled_out[number], released=True))

    def train(self, choose: random.Random) -> None:
        if self.rolled_out and choose.random() < 0.2:
            self.drop(choose.sample(sorted(self.rolled_out), 1))
        self.drop([n for n in self.rolled_out if self.versions[n] < self.version - self.pace.max_staleness])
        if self.step < self.pace.steps and len(self.rolled_out) >= self.pace.groups_per_step:
            used = sorted(self.rolled_out)[: self.pace.groups_per_step]
            for number in used:
                del self.rolled_out[number]
            self.step += 1
            final = self.step == self.pace.steps
            announced = final or self.step % self.pace.sync_interval == 0
            self.log("steps", step_event(self.step, self.version, self.version + announced, used))
            if announced:
                self.version += 1
                self.log("weights", weights(self.version, self.step, final=final))

    def drop(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.rolled_out[number]
        if numbers:
            self.log("steps", step_event(self.step, self.version, self.version, numbers, "retire"))

    def slots(self) -> int:
        """Return how many train tasks are issued and hold a slot."""
        retired = {number for event in self.topics["steps"] for number in event.retired}
        issued = {one.number for one in self.topics["tasks"] if one.split == "train"}
        return len(issued - retired) - min(len(self.waiting), self.pace.free_waiting)

    def replay(self, choose: random.Random) -> list[ConductorInput]:
        """Return all events in some interleaving of the topics, each topic in its own order."""
        rest = {topic: list(events) for topic, events in self.topics.items() if events}
        merged = []
        while rest:
            topic = choose.choice(sorted(rest))
            merged.append(rest[topic].pop(0))
            if not rest[topic]:
                del rest[topic]
        self.unread = []
        return merged


PACES = st.builds(
    Pace,
    steps=st.integers(1, 5),
    groups_per_step=st.integers(1, 3),
    sync_interval=st.integers(1, 3),
    max_staleness=st.integers(0, 2),
    free_waiting=st.sampled_from((0, 0, 1, 3)),
)
PLANS = st.dictionaries(
    st.sampled_from(sorted(SAMPLES)),
    st.builds(
        EvaluationPlan, tasks=st.integers(0, 4), interim_tasks=st.integers(0, 3), every_versions=st.integers(0, 2)
    ),
)


def slots(conductor: Conductor) -> int:
    return conductor.pacer.in_flight - conductor.pacer.waiting


@given(PACES, PLANS, st.integers(0, 10**9), st.integers(0, 6))
def test_each_task_is_issued_once_however_often_the_conductor_is_killed(pace, plans, seed, kills) -> None:
    choose, world, conductor = random.Random(seed), World(pace), None
    for _ in range(2000):
        if conductor is None:
            conductor = Conductor(pace, plans, MODEL)
            for event in world.replay(choose):
                assert conductor.step(event) == []
            requests = conductor.caught_up()
        else:
            unread, world.unread = world.unread, []
            requests = []
            for event in unread:
                due = conductor.step(event)
                assert slots(conductor) <= pace.bound or not any(isinstance(one, TrainTaskRequest) for one in due)
                requests += due
        if kills and requests and choose.random() < 0.3:
            kills, conductor = kills - 1, None
            requests = choose.sample(requests, choose.randint(0, len(requests)))  # what reached the log before the kill
        world.issue(requests)
        assert conductor is None or slots(conductor) == world.slots(), "killed or not, it knows who holds a slot"
        if conductor and conductor.done:
            break
        world.explore(choose)
        world.train(choose)
        assert world.slots() <= pace.bound or pace.free_waiting
    assert conductor is not None
    assert conductor.done, "the run makes no progress"
    assert world.step == pace.steps
    times = Counter(t.group_id for t in world.topics["tasks"])
    assert set(times.values()) == {1}
    results = {parse_group_id(e.experience.group_id) for e in world.topics["ready"]}
    for version in (0, world.version):
        for name, plan in plans.items():
            assert {EvalGroup(version, number, name) for number in range(plan.tasks)} <= results


def caught_up(
    plan: EvaluationPlan, *log: ConductorInput, pace: Pace | None = None
) -> tuple[Conductor, list[TaskRequest]]:
    conductor = Conductor(
        pace or Pace(steps=2, groups_per_step=1, sync_interval=1, max_staleness=0), {MAIN_SET: plan}, MODEL
    )
    for event in log:
        conductor.step(event)
    return conductor, conductor.caught_up()


def test_nothing_is_issued_before_there_are_weights() -> None:
    conductor, requests = caught_up(EvaluationPlan(2, 0, 0))
    assert requests == []
    assert conductor.step(weights(0, 0, model="someone-else")) == []
    assert conductor.step(weights(0, 0)) == [EvalTaskRequest(0, 0), EvalTaskRequest(0, 1)]


def test_training_waits_for_the_evaluation_before_it() -> None:
    conductor, evals = caught_up(EvaluationPlan(2, 0, 0), weights(0, 0))
    assert conductor.step(result(task(evals[0]), 1.0)) == []
    assert conductor.step(result(task(evals[1]), 0.9, verdict="filtered")) == [TrainTaskRequest(0, 0)]
    assert [(one.version, one.tasks, one.reward) for one in conductor.take_outcomes()] == [(0, 2, 0.5)]
    assert conductor.take_outcomes() == []


def test_without_evaluation_the_final_weights_end_the_run() -> None:
    conductor, requests = caught_up(EvaluationPlan(0, 0, 1), weights(0, 0))
    assert requests == [TrainTaskRequest(0, 0)]
    conductor.step(weights(1, 1))
    assert not conductor.done
    conductor.step(weights(2, 2, final=True))
    assert conductor.done


def test_evaluations_in_between_do_not_hold_up_training() -> None:
    pace = Pace(steps=9, groups_per_step=1, sync_interval=1, max_staleness=0)
    conductor, _ = caught_up(EvaluationPlan(3, 1, 2), weights(0, 0), pace=pace)
    for number in range(3):
        conductor.step(result(task(EvalTaskRequest(0, number))))
    conductor.step(step_event(1, 0, 1, [0]))
    assert conductor.step(weights(1, 1)) == []
    assert conductor.step(step_event(2, 1, 2, [1])) == [TrainTaskRequest(2, 2)]
    assert conductor.step(weights(2, 2)) == [EvalTaskRequest(2, 0)]
    assert conductor.step(weights(2, 2)) == []
    assert conductor.step(step_event(3, 2, 3, [2])) == [TrainTaskRequest(3, 3)]


def test_each_set_is_evaluated_at_its_own_pace_and_complete_with_its_last_answer() -> None:
    plans = {MAIN_SET: EvaluationPlan(1, 1, 0), "hard-1": EvaluationPlan(1, 1, 1)}
    conductor = Conductor(Pace(9, 1, 1, 0), plans, MODEL)
    conductor.step(weights(0, 0))
    assert conductor.caught_up() == [EvalTaskRequest(0, 0), EvalTaskRequest(0, 0, "hard-1")]
    conductor.step(result(task(EvalTaskRequest(0, 0))))
    hard = task(EvalTaskRequest(0, 0, "hard-1"))
    for sample, reward in ((0, 1.0), (0, 1.0), (1, 0.5)):
        assert conductor.step(result(hard, reward, sample=sample)) == []
    assert not conductor.training
    assert conductor.step(result(hard, 0.0, sample=2)) == [TrainTaskRequest(0, 0)]
    assert [(one.set_name, one.reward) for one in conductor.take_outcomes()] == [(MAIN_SET, 1.0), ("hard-1", 0.5)]
    conductor.step(step_event(1, 0, 1, [0]))
    assert conductor.step(weights(1, 1)) == [EvalTaskRequest(1, 0, "hard-1")]


def test_a_longer_run_goes_on_where_a_finished_one_ended() -> None:
    log = [weights(0, 0), task(TrainTaskRequest(0, 0)), step_event(1, 0, 1, [0]), weights(1, 1, final=True)]
    conductor, requests = caught_up(EvaluationPlan(0, 0, 0), *log)
    assert requests == [TrainTaskRequest(1, 1)]
    assert not conductor.done


def test_group_ids_of_evaluations_differ_from_others() -> None:
    for name in (MAIN_SET, "hard", "hard-1", "2024", "a.b_c"):
        assert parse_group_id(EvalGroup(3, 12, name).group_id) == EvalGroup(3, 12, name)
    assert EvalGroup(3, 12).group_id == "eval-00000003-00000012"
    for other in ("train-00000012", "eval-", "eval-x-1", "eval-1", "eval-1-"):
        assert parse_group_id(other) is None


def test_groups_that_cannot_be_trained_are_counted_until_the_next_gradient_step():
    conductor = Conductor(Pace(10, 2, 1, 0), {}, MODEL)
    conductor.step(weights(0, 0))
    conductor.caught_up()
    conductor.step(step_event(0, 0, 0, [0, 1, 2], kind="retire"))
    assert conductor.starved == 3
    conductor.step(step_event(1, 0, 1, [3, 4]))
    assert conductor.starved == 0
    conductor.step(step_event(1, 1, 1, [5], kind="retire"))
    assert conductor.starved == 1


def test_held_out_answers_that_fail_are_counted_until_one_can_be_judged():
    conductor = Conductor(Pace(10, 2, 1, 0), {MAIN_SET: EvaluationPlan(8, 8, 0)}, MODEL)
    conductor.step(weights(0, 0))
    tasks = [task(request) for request in conductor.caught_up()]
    failed = [replace(result(one), verdict="filtered", cause="score_failed") for one in tasks]
    for answer in failed[:3]:
        conductor.step(answer)
    assert conductor.failed_answers == 3
    conductor.step(result(tasks[3]))
    assert conductor.failed_answers == 0
    conductor.step(replace(failed[4], cause="rollout_failed"))
    assert conductor.failed_answers == 1


def test_only_failures_make_a_run_hopeless():
    good = result(task(TrainTaskRequest(0, 0)))
    failed = replace(good, verdict="filtered", cause="score_failed")
    assert all_failed([failed, replace(failed, cause="rollout_failed")])
    assert not all_failed([failed, good])
    assert not all_failed([failed, replace(failed, cause="uniform")])
    assert not all_failed([])
    said = describe_failed_groups(32, [failed] * 4, "RewardError: no judge")
    assert said.startswith("all of the last 32 groups failed. Of the newest 4 experiences: 4 filtered as score_failed.")
    assert "The most frequent error of a reward: RewardError: no judge." in said
    assert "trainer.max_failed_groups" in said
    uniform = replace(failed, cause="uniform")
    assert warn_of_starvation(64, [uniform] * 3, 1000) == (
        "64 groups in a row were retired without one gradient step. Of the newest 3 experiences: 3 filtered as "
        "uniform. The run ends after 1000 such groups (trainer.max_barren_groups)."
    )


def conductor(mode: str, steps: int = 3) -> tuple[Conductor, Pace]:
    config = Config.model_validate(
        {"run": {"mode": mode}, "trainer": {"steps": steps, "groups_per_step": 2, "max_staleness": 1}}
    )
    pace = Pace.from_config(config)
    core = Conductor(pace, {MAIN_SET: EvaluationPlan(2, 2, 0)} if mode == "eval" else {}, MODEL, mode)
    core.caught_up()
    return core, pace


def test_exploring_ends_when_the_tasks_of_all_steps_are_scored_and_needs_one_version_only() -> None:
    core, pace = conductor("explore")
    waiting = core.step(weights(0, 0))
    assert len(waiting) == pace.bound
    done: list[Task] = []
    while waiting:
        assert not core.done
        done.append(task(waiting.pop(0)))
        waiting += core.step(result(done[-1]))
        waiting += core.step(result(done[-1]))  # a second experience of its group
        assert len(waiting) <= pace.bound
    assert sorted(one.number for one in done) == list(range(6))
    assert {one.min_version for one in done} == {0}
    assert core.done
    assert core.starved == 0
    again, _ = conductor("explore")
    assert [request for one in done for request in [*again.step(one), *again.step(result(one))]] == []
    assert again.step(weights(0, 0)) == []
    assert again.done


def test_only_evaluating_issues_held_out_tasks_and_nothing_else() -> None:
    core, _ = conductor("eval")
    requests = core.step(weights(0, 0, final=True))
    assert [type(request) for request in requests] == [EvalTaskRequest, EvalTaskRequest]
    for request in requests:
        assert not core.done
        assert core.step(result(task(request))) == []
    assert core.done


def test_a_run_on_data_alone_issues_no_task_and_ends_with_the_trainer() -> None:
    core, _ = conductor("train")
    assert core.step(weights(0, 0)) == []
    assert not core.done
    assert core.step(weights(1, 1, final=True)) == []
    assert core.done
