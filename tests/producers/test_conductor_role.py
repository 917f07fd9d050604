"""The conductor as a process on a real log: killed at any moment, it goes on from the end of the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rft.config import Config
from rft.errors import StarvationError
from rft.log.writer import EventWriter
from schemas.events import Experience, ScoredExperience, Task, TrainingStep, Waiting, WaitingMember
from tests.producers.roles import Log, RoleProcess, announce

RoleConfig = Callable[..., Config]
STEPS, GROUPS, EVALS = 6, 4, 10


def result(done: Task) -> ScoredExperience:
    experience = Experience(
        f"{done.group_id}/0", done.group_id, done.number, 0, done.split, 1, done.prompt, "", None, 0, "test", "policy"
    )
    return ScoredExperience(experience, 0, 0, "train", None, 1.0, {}, 0.0, "", 1, 0)


def test_a_killed_conductor_goes_on_from_the_end_of_the_log(role_config: RoleConfig, model: Path) -> None:
    """The test plays all other roles. Each task is issued once, the bound holds, the final weights are evaluated."""
    config = role_config(
        tasks={"source": "reasoning_gym:spell_backward", "prompt_template": "{word}>"},
        rollout={"samples": 2, "max_tokens": 8},
        trainer={"steps": STEPS, "groups_per_step": GROUPS, "max_staleness": 1},
        eval={"tasks": EVALS},
    )
    bound = config.pacing_bound
    with ExitStack() as roles, EventWriter(config, "test") as writer, Log(config, "tasks") as log:

        def issued(split: str) -> list[Task]:
            return [t for t in log.read("tasks") if t.split == split]

        def evaluate(version: int) -> None:
            tasks = log.wait("tasks", lambda _: len([t for t in issued("eval") if t.min_version == version]) == EVALS)
            for done in [t for t in tasks if t.split == "eval" and t.min_version == version]:
                writer.send("ready", result(done))
            writer.flush()

        conductor = roles.enter_context(RoleProcess("conductor", config, name="conductor-0"))
        announce(config, writer, model, 0)
        evaluate(0)
        log.wait("tasks", lambda _: len(issued("train")) == bound)
        for step in range(1, STEPS + 1):
            if step % 3 == 1:  # the last one was killed while the step was taken
                conductor.kill()
                conductor = roles.enter_context(RoleProcess("conductor", config, name=f"conductor-{step}"))
            retired = tuple(range((step - 1) * GROUPS, step * GROUPS))
            writer.send("steps", TrainingStep("policy", "step", step, step - 1, step, (), (), retired, "", {}, 0))
            writer.flush()
            announce(config, writer, model, step, final=step == STEPS)
            expected = min(step * GROUPS + bound, STEPS * GROUPS)
            log.wait("tasks", lambda _, n=expected: len(issued("train")) == n)
        evaluate(STEPS)
        assert conductor.process.wait(30) == 0
        output = conductor.log_path.read_text()
        everything = log.read("tasks", wait_s=1.0)
    assert f"evaluated weight version {STEPS} on held_out: mean reward 1.000, {EVALS} tasks" in output
    assert sorted(t.number for t in everything if t.split == "train") == list(range(STEPS * GROUPS))
    assert len({t.group_id for t in everything}) == len(everything)
    train = {t.prompt for t in everything if t.split == "train"}
    held_out = {t.prompt for t in everything if t.split == "eval"}
    assert len(held_out) == EVALS
    assert not train & held_out
    assert all(t.temperature == 0 and t.samples == 1 for t in everything if t.split == "eval")


def test_groups_that_wait_for_rewards_hold_no_slots_before_and_after_a_kill(
    role_config: RoleConfig, model: Path
) -> None:
    """With ``processor.external.pacing = "free"``. The test plays all other roles."""
    config = role_config(
        tasks={"source": "reasoning_gym:spell_backward"},
        rollout={"samples": 2},
        trainer={"steps": 50, "groups_per_step": 4, "max_staleness": 1},
        processor={"external": {"required": ["human"], "pacing": "free"}},
        eval={"tasks": 0},
    )
    with ExitStack() as roles, EventWriter(config, "test") as writer, Log(config, "tasks") as log:

        def waits(number: int, *, arrived: int = 2, released: bool = False) -> None:
            members = tuple(WaitingMember(str(n), n, 9, None, False, 0.0, {}, ()) for n in range(arrived))
            writer.send("waiting", Waiting(f"train-{number:08d}", 2, 0, members, released))

        def retire(number: int) -> None:
            writer.send("steps", TrainingStep("policy", "retire", 0, 0, 0, (), (), (number,), "", {}, 0))
            writer.flush()

        def wait_for_tasks(count: int) -> None:
            log.wait("tasks", lambda found: len(found) >= count)
            assert [one.number for one in sorted(log.read("tasks", 0.5), key=lambda t: t.number)] == list(range(count))

        conductor = roles.enter_context(RoleProcess("conductor", config, name="conductor-0"))
        announce(config, writer, model, 0)
        wait_for_tasks(8)
        waits(0), waits(1), waits(2), waits(3, arrived=1)
        writer.send_bytes("waiting", b"junk", key=b"train-00000004")
        no_row = WaitingMember("x", 0, 9, None, False, 0.0, {}, (), rows=2)
        writer.send("waiting", Waiting("train-00000004", 2, 0, (no_row,), False))
        writer.flush()
        wait_for_tasks(11)
        conductor.kill()
        waits(0, released=True)
        writer.flush()
        conductor = roles.enter_context(RoleProcess("conductor", config, name="conductor-1"))
        conductor.wait_for("11 train tasks are issued, 0 of them retired")
        retire(0)
        wait_for_tasks(11)  # 0 took a slot again when it was released: eight others and two that wait are left
        retire(4)
        wait_for_tasks(12)
    assert "waiting" in conductor.log_path.read_text(), "the junk is named"


def test_a_stopped_conductor_ends_in_time(role_config: RoleConfig) -> None:
    config = role_config(eval={"tasks": 0}, tasks={"source": "reasoning_gym:spell_backward"})
    with RoleProcess("conductor", config) as conductor, Log(config, "tasks"):
        conductor.wait_for("train tasks are issued")
        code, seconds = conductor.terminate()
    assert code == 0
    assert seconds < 30


def test_a_run_in_which_nothing_can_be_trained_ends_with_the_cause(role_config: RoleConfig, model: Path) -> None:
    config = role_config(
        tasks={"source": "reasoning_gym:spell_backward"},
        trainer={"groups_per_step": 2, "max_barren_groups": 6},
        eval={"tasks": 0},
    )
    why = "26 prompt tokens are too many"
    with EventWriter(config, "test") as writer:
        announce(config, writer, model, 0)
        for number in range(6):
            failed = Experience(
                f"train-{number}/0", f"train-{number}", number, 0, "train", 1, "p", "", None, 0, "test", "policy",
                finish_reason="error", error=why,
            )  # fmt: skip
            scored = ScoredExperience(failed, 0, 0, "filtered", "rollout_failed", 0.0, {}, 0.0, "", 1, 0)
            writer.send("ready", scored)
            writer.send("steps", TrainingStep("policy", "retire", 0, 0, 0, (), (), (number,), "", {}, 0))
        writer.flush()
        with RoleProcess("conductor", config) as conductor:
            assert conductor.process.wait(30) == StarvationError.exit_code
            last = conductor.log_path.read_text().splitlines()[-1]
    assert "StarvationError: 6 groups in a row were retired without one gradient step" in last
    assert "6 filtered as rollout_failed" in last
    assert why in last
    assert "Fix the cause or raise trainer.max_barren_groups." in last


def test_a_curriculum_by_results_is_rebuilt_from_the_log_after_a_kill(
    role_config: RoleConfig, model: Path, tmp_path: Path
) -> None:
    """One of six questions is answered right half the time. All are asked once, then only that one."""
    source = tmp_path / "questions.jsonl"
    source.write_text("".join(json.dumps({"question": f"q{n}"}) + "\n" for n in range(6)))
    config = role_config(
        tasks={"source": f"jsonl:{source}", "order": "pass_rate"},
        trainer={"steps": 12, "groups_per_step": 1, "max_staleness": 0},
        rollout={"samples": 2},
        eval={"tasks": 0},
    )
    with ExitStack() as roles, EventWriter(config, "test") as writer, Log(config, "tasks") as log:
        conductor = roles.enter_context(RoleProcess("conductor", config, name="conductor-0"))
        announce(config, writer, model, 0)
        for step in range(1, 13):
            asked = log.wait("tasks", lambda found, n=step: len(found) == n)[-1]
            right = asked.prompt == "q3"
            for sample in range(2):
                scored = result(asked)
                experience = replace(scored.experience, experience_id=f"{asked.group_id}/{sample}", sample=sample)
                writer.send("ready", replace(scored, experience=experience, reward=float(right and sample)))
            writer.flush()
            if step == 8:
                conductor.kill()
                conductor = roles.enter_context(RoleProcess("conductor", config, name="conductor-1"))
            writer.send("steps", TrainingStep("policy", "step", step, step - 1, step, (), (), (step - 1,), "", {}, 0))
            writer.flush()
            announce(config, writer, model, step, final=step == 12)
        assert conductor.process.wait(30) == 0
        prompts = [task.prompt for task in log.read("tasks", wait_s=1.0)]
    assert sorted(prompts[:6]) == [f"q{n}" for n in range(6)]
    # A result may come after the next task is requested.
    assert prompts[7:] == ["q3"] * 5
