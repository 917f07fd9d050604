"""The live view shows the facts of a run, from events as they come and without a terminal."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from log_events import MadeUpLog, experience, member, scored, step, weights
from rich.console import Console

from infra.launcher.formats import clock, sparkline
from infra.launcher.generation_rate import GenerationRate
from infra.launcher.problems import Problem
from infra.launcher.progress import Facts, Progress, RoleFacts, SampleRollout
from infra.launcher.role_notes import note
from infra.launcher.screen import Size, screen
from infra.launcher.view import LiveView, PlainView, plain_line
from rft.config import Config
from rft.telemetry.health import Health

CONFIG = Config.model_validate({"trainer": {"steps": 10}, "eval": {"tasks": 2, "interim_tasks": 1}})


def facts_of(log: MadeUpLog) -> Facts:
    progress = Progress(CONFIG)
    for event in log.events:
        progress.feed(event)
    return progress.facts()


def evaluate(log: MadeUpLog, version: int, *rewards: float) -> None:
    for index, reward in enumerate(rewards):
        one = experience(f"eval-{version:08d}-{index:08d}/0")
        log.add("ready", scored(one, reward), key=one.group_id)


def test_the_phase_follows_the_run():
    log = MadeUpLog()
    phases = [facts_of(log).phase]
    log.add("weights", weights(0))
    evaluate(log, 0, 1.0)
    phases.append(facts_of(log).phase)
    evaluate(log, 0, 1.0, 0.0)
    phases.append(facts_of(log).phase)
    log.add("steps", step(1, {"a/0": 0}))
    phases.append(facts_of(log).phase)
    log.add("weights", weights(10, final=True))
    phases.append(facts_of(log).phase)
    evaluate(log, 10, 1.0, 1.0)
    phases.append(facts_of(log).phase)
    assert phases == [
        "starting",
        "evaluation before training, 1 of 2 tasks",
        "training",
        "training",
        "final evaluation, 0 of 2 tasks",
        "finishing",
    ]


def test_steps_give_reward_staleness_idle_share_and_time_left():
    log = MadeUpLog()
    for number in (1, 2, 3):
        metrics = {
            "reward_mean": number / 10,
            "staleness_mean": 0.5,
            "staleness_max": 1.0,
            "step_s": 3.0,
            "idle_s": 1.0,
        }
        log.add("steps", step(number, {f"a/{number}": 0}, **metrics))
    facts = facts_of(log)
    assert (facts.step, facts.steps) == (3, 10)
    assert facts.rewards == (0.1, 0.2, 0.3)
    assert (facts.staleness_mean, facts.staleness_max) == (0.5, 1.0)
    assert facts.idle_share == 0.25
    assert facts.eta_s == 7.0


def test_only_complete_evaluations_are_shown_and_repeats_count_once():
    log = MadeUpLog()
    log.add("weights", weights(0))
    evaluate(log, 0, 1.0)
    evaluate(log, 0, 1.0)
    assert facts_of(log).accuracies == ()
    evaluate(log, 0, 1.0, 0.0)
    evaluate(log, 4, 1.0)
    assert facts_of(log).accuracies == ((0, 0.5), (4, 1.0))


def test_training_groups_are_skipped_without_decoding_them():
    log = MadeUpLog()
    log.add("ready", b"this cannot be decoded", key="train-00000001")
    assert facts_of(log).phase == "starting"


def test_rates_and_lags_come_from_offsets():
    progress = Progress(CONFIG)
    log = MadeUpLog()
    log.add("steps", step(1, {"a/0": 0, "a/1": 0}, {"b/0": "stale"}))
    evaluate(log, 0, 1.0)
    for event in log.events:
        progress.feed(event)
    for second in range(21):
        progress.measure(float(second), {"experiences": 50 * second, "ready": 10, "dlq": 2}, {"tasks": 3})
    facts = progress.facts()
    assert facts.experiences == 1000
    assert facts.experiences_per_s == 50
    # Of 10 ready, the trainer used 2, dropped 1 and skips 1 evaluation.
    assert facts.lag == {"tasks": 3, "ready": 6}
    assert facts.dead_letters == 2


FACTS = Facts(
    phase="training", step=350, steps=700, version=350, eta_s=61.0, rewards=(0.25, 0.75),
    accuracies=((0, 0.35), (300, 0.8)), staleness_mean=0.5, staleness_max=1, experiences=1234,
    experiences_per_s=600.4, idle_share=0.125, lag={"tasks": 1, "experiences": 22, "ready": 333}, dead_letters=4,
)  # fmt: skip
ROLES = [RoleFacts("trainer", "running", 0, 400 << 20), RoleFacts("explorer-0", "waiting", 2, 0)]
SHOWN = (
    "350/700",
    "01:01",
    "0.500",
    "80.0%",
    "12%",
    "tasks 1",
    "experiences 22",
    "ready 333",
    "trainer",
    "explorer-0",
    "waiting",
)


def test_the_plain_line_shows_all_facts_in_one_line():
    line = plain_line(FACTS, ROLES, 65)
    assert "\n" not in line
    for text in (*SHOWN, "01:05", "600 experiences/s", "staleness 0.50 max 1", "400 MiB", "dead letters 4"):
        assert text in line


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_shows_the_same_at_any_width(width):
    output = StringIO()
    Console(file=output, width=width, force_terminal=True, color_system=None).print(screen("run", FACTS, ROLES, 65))
    text = " ".join(output.getvalue().split())
    for fact in (*SHOWN, "01:05", "600/s", "400 MiB"):
        assert fact in text
    assert len(output.getvalue().splitlines()) < 24


HEALTH = Health("trainer", 1, "waiting", "waits for a batch since 40 s", "a batch", 40.0, 7, 41.0, time=100.0)


def test_a_role_says_what_it_waits_for_if_it_has_waited_or_is_silent():
    assert note(HEALTH, 101.0) == "has waited 40 s for a batch"
    assert note(replace(HEALTH, waits_s=1.0), 101.0) == ""
    works = replace(HEALTH, state="working", waits_s=None, activity="rolls out group 7, for 12 s", progress_age_s=1.0)
    assert note(works, 101.0) == ""
    assert note(replace(works, progress_age_s=12.0), 101.0) == "no progress for 12 s: rolls out group 7, for 12 s"
    assert note(None, 101.0) == ""
    assert note(HEALTH, 130.0) == "has not reported for 30 s; its last line: waits for a batch since 40 s"


def test_ids_from_the_log_cannot_move_the_cursor():
    assert note(replace(HEALTH, waits_for="\x1b[2J\nx"), 101.0) == "has waited 40 s for  [2J x"


@pytest.mark.parametrize("width", [80, 200])
def test_each_role_that_waits_has_one_line_of_its_own(width):
    waits = [replace(role, note=f"waits for {'something ' * 12}since 40 s") for role in ROLES]
    output = StringIO()
    Console(file=output, width=width, force_terminal=True, color_system=None).print(screen("run", FACTS, waits, 65))
    lines = output.getvalue().splitlines()
    assert len([line for line in lines if "waits for something" in line]) == 2
    assert all(any(f"{role.name} " in line and "waits for" in line for line in lines) for role in ROLES)
    assert max(map(len, lines)) == width
    assert len(lines) < 24
    assert "(waits for something" in plain_line(FACTS, waits, 65)


@pytest.mark.parametrize("view", [PlainView, LiveView])
def test_lines_are_printed_as_they_are(view):
    output = StringIO()
    with view(Console(file=output, width=40, force_terminal=view is LiveView), "run") as shown:
        shown.print_line("[bold]:running: " + "x" * 60)
        shown.update(FACTS, ROLES, 1)
    assert "[bold]:running: " + "x" * 60 in output.getvalue()


def test_sparkline_and_clock():
    assert sparkline([]) == ""
    assert sparkline([1, 1, 1]) == "▁▁▁"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(list(range(1000)), width=40)) == 40
    assert [clock(s) for s in (0, 61.9, 3723)] == ["00:00", "01:01", "1:02:03"]


PROBLEMS = [
    Problem("processor-0", "error", "no reward: reward function mine:broken raised KeyError: 'x'", 412, 1.0)
] + [Problem(f"explorer-{index}", "warning", f"slow {'x' * index}", 1, 1.0) for index in range(20)]
FULL = replace(
    FACTS,
    metrics={"loss": -0.0123, "kl": 0.5, "entropy": 3.98, "tokens": 500.0, "step_s": 0.5},
    tokens_per_s=765.4,
    response_tokens=7.6,
    sample=SampleRollout("mowth>\x1b[2J", "uAok\nDo [bold]", "htwom", 0.25, None),
)


def shown(columns: int, rows: int) -> list[str]:
    output = StringIO()
    console = Console(file=output, width=columns, height=rows, force_terminal=True, color_system=None)
    console.print(screen("run", FULL, ROLES, 65, PROBLEMS, Size(columns, rows)))
    return output.getvalue().splitlines()


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (100, 30), (200, 50), (300, 80)])
def test_the_worst_problem_is_shown_whole_on_any_terminal_and_the_screen_fits(columns, rows):
    lines = shown(columns, rows)
    text = "".join(line.strip("│ ") for line in lines)
    assert "412×" in text
    assert "raised KeyError: 'x'" in text.replace("raisedKey", "raised Key")
    assert "more" in text
    assert len(lines) < rows
    assert all(line.isprintable() for line in lines)


def test_a_large_terminal_also_shows_the_newest_step_and_a_rollout():
    text = "\n".join(shown(200, 50))
    metrics = ("-0.0123", "3.980 nats", "765 tokens/s", "7.6 tokens", "1,000 tokens/s")
    for fact in (*metrics, "uAok Do [bold]", "htwom"):
        assert fact in text
    assert "htwom" not in "\n".join(shown(80, 24))


def test_rewards_that_are_no_shares_are_shown_as_rewards():
    facts = replace(FACTS, accuracies=((0, -1.5), (300, 2.25)), rewarded_sets=frozenset({FACTS.main_set}))
    assert "held-out reward 2.250 (v300)" in plain_line(facts, ROLES, 65)
    output = StringIO()
    Console(file=output, width=120, color_system=None).print(screen("run", facts, ROLES, 65))
    assert "2.250 at v300, first -1.500" in output.getvalue()
    assert "%" not in output.getvalue().replace("12%", "")


def test_steps_without_gradient_are_counted_until_one_has_some():
    log = MadeUpLog()
    for number, norm in enumerate((1.0, 0.0, 0.0, 0.0), start=1):
        log.add("steps", step(number, {f"a/{number}": 0}, grad_norm=norm))
    facts = facts_of(log)
    assert facts.steps_without_gradient == 3
    assert "3 steps without gradient" in plain_line(facts, ROLES, 1)
    log.add("steps", step(5, {"a/5": 0}, grad_norm=0.5))
    assert facts_of(log).steps_without_gradient == 0


def test_one_of_the_newest_training_rollouts_is_decoded_to_be_shown():
    progress = Progress(CONFIG)
    log = MadeUpLog()
    for number in range(3):
        one = experience(f"train-{number:08d}/0", response=f"answer {number}")
        log.add("ready", scored(one, 0.5), key=one.group_id)
    log.add("ready", b"this cannot be decoded", key="train-00000009")
    for event in log.events[:3]:
        progress.feed(event)
    assert progress.facts().sample is None
    progress.measure(1.0, {}, {})
    assert progress.facts().sample == SampleRollout("ba>", "answer 2", "ab", 0.5, None)
    progress.feed(log.events[3])
    progress.measure(2.0, {}, {})
    assert progress.facts().sample == SampleRollout("ba>", "answer 2", "ab", 0.5, None)


def test_generation_is_measured_over_the_explorers_that_are_there():
    rate = GenerationRate()
    assert (rate.tokens_per_s, rate.response_tokens) == (0.0, None)
    for second in range(0, 21, 2):
        for address, scale in (("a:1", 1), ("b:2", 2)):
            made = member(address, tokens=100.0 * scale * second, rollouts=10.0 * scale * second)
            rate.feed(replace(made, heartbeat_at=1000 * second))
    assert rate.tokens_per_s == pytest.approx(300)
    assert rate.response_tokens == pytest.approx(10)
    rate.feed(replace(member("b:2"), state="left"))
    assert rate.tokens_per_s == pytest.approx(100)
    for second in range(60, 71, 2):
        rate.feed(replace(member("c:3", tokens=7.0 * second, rollouts=1.0 * second), heartbeat_at=1000 * second))
    assert rate.tokens_per_s == pytest.approx(7), "a:1 was killed"
