"""The report's numbers, against logs small enough to count by hand."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from log_events import MadeUpLog, dead_letter_headers, experience, member, scored, step, weights

from consumers.report.build import read_summary
from consumers.report.page import render
from consumers.report.reducer import READ_ORDER, RunReducer, RunSummary
from consumers.report.report_json import report_content, samples
from rft.config import Config
from rft.log.coordinates import LogPosition
from rft.log.dead_letter_index import resolution_headers
from rft.log.events import Event
from rft.log.writer import EventWriter
from schemas.events import WeightVersion

CONFIG = Config.model_validate({"eval": {"tasks": 2}})


def summary_of(events: list[Event], config: Config = CONFIG) -> RunSummary:
    reducer = RunReducer(config, "exact_match")
    reducer.add_all(events)
    return reducer.summary


def report_of(log: MadeUpLog, config: Config = CONFIG, wall_s: float | None = None) -> dict[str, Any]:
    return report_content(summary_of(log.of(*READ_ORDER), config), config, wall_s=wall_s, versions={"torch": "1"})


def test_experiences_are_counted_by_id_and_position():
    log = MadeUpLog()
    for name in ("a/0", "a/1", "a/0", "b/0"):
        log.add("experiences", experience(name))
    log.add("experiences", b"garbage")
    # A malformed event may carry an id that a good one has.
    log.add("experiences", b"worse", headers=[("ce_id", b"a/1")])
    log.add("experiences", experience("c/0"), headers=[])
    for offset in (4, 5, 4):
        log.add("dlq", b"x", headers=dead_letter_headers("rft.experiences.v1", offset))
    log.add("dlq", b"x", headers=dead_letter_headers("rft.rewards.v1", 0))
    # An event that closes a dead letter is none itself.
    log.add("dlq", b"", headers=resolution_headers(LogPosition(0, 1), "discarded"))
    counts = report_of(log)["experiences"]
    assert counts["published"] == 7
    assert counts["distinct"] == 4
    assert counts["dead_lettered"] == 2
    assert counts["duplicates"] == 1
    assert counts["published"] == counts["distinct"] + counts["duplicates"] + counts["dead_lettered"]
    assert counts["dead_letters_by_class"] == {"DecodeError": 3}


def test_experiences_released_twice_and_redone_steps_count_once():
    log = MadeUpLog()
    for name in ("a/0", "a/0", "b/0"):
        log.add("ready", scored(experience(name)), key=name[0])
    log.add("ready", scored(experience("c/0"), cause="too_long"), key="c")
    log.add("ready", scored(experience("c/0"), cause="too_long"), key="c")
    log.add("steps", step(1, {"a/0": 0}))
    log.add("steps", step(2, {"lost/0": 3}))
    log.add("steps", step(2, {"b/0": 1}))
    report = report_of(log)
    assert report["steps"] == 2
    assert report["experiences"]["ready"] == 3
    assert report["experiences"]["filtered"] == 1
    assert report["experiences"]["filtered_by_cause"] == {"too_long": 1}
    assert report["experiences"]["trained"] == 2
    assert report["staleness"] == {"max": 1, "mean": 0.5, "bound": 1}


def test_dropped_excludes_experiences_that_were_filtered_or_trained_from_another_copy():
    log = MadeUpLog()
    log.add("ready", scored(experience("f/0"), cause="truncated"), key="f")
    log.add("steps", step(1, {"a/0": 0}, {"a/0": "duplicate", "f/0": "filtered", "s/0": "stale"}))
    log.add("steps", step(1, {}, {"s/1": "stale"}, kind="retire"))
    report = report_of(log)
    assert report["experiences"]["dropped_by_trainer"] == {"stale": 2}
    assert report["steps"] == 1


def test_staleness_excludes_experiences_that_no_policy_wrote():
    log = MadeUpLog()
    log.add("steps", step(1, {"a/0": -1, "b/0": 2, "c/0": 0}))
    assert report_of(log)["staleness"] == {"max": 2, "mean": 1.0, "bound": 1}


def test_lengths_and_durations_of_stale_rollouts_stand_beside_those_of_trained_ones():
    log = MadeUpLog()
    sizes = {"a/0": (1, 1000), "a/1": (2, 2000), "s/0": (3, 4000), "s/1": (3, 8000), "t/0": (1, 500), "f/0": (2, 9)}
    for name, (written, duration_ms) in sizes.items():
        arrays = {
            "tokens": np.arange(4, dtype=np.int32), "action_mask": (np.arange(4) > 3 - written).astype(np.uint8),
            "logprobs": np.zeros(4, np.float32),
            "versions": np.where(np.arange(4) > 3 - written, 0, -1).astype(np.int32),
        }  # fmt: skip
        cause = "too_long" if name == "f/0" else None
        log.add("ready", scored(experience(name, duration_ms=duration_ms, **arrays), cause=cause), key=name[0])
    log.add("steps", step(1, {"a/0": 0}, {"s/0": "stale", "f/0": "filtered"}))
    log.add("steps", step(2, {"a/1": 3, "t/0": 1, "d/0": -1}, {"s/1": "stale", "t/0": "stale"}))
    summary = summary_of(log.of(*READ_ORDER))
    report = report_content(summary, CONFIG, wall_s=1, versions={})
    assert report["long_tail"] == {
        "dropped_share": 0.4,
        "trained": {"rollouts": 3, "tokens_mean": 1.33, "seconds_mean": 1.167},
        "dropped": {"rollouts": 2, "tokens_mean": 3.0, "seconds_mean": 6.0},
        "spare": {"rollouts": 0, "tokens_mean": None, "seconds_mean": None},
        "beyond_bound": 1,
    }
    page = render(report, summary, CONFIG)
    assert "2 (40.0%)" in page
    assert "3.0 tokens, 6.00 s" in page


def test_spare_rollouts_that_came_all_the_same_are_reported_with_their_lengths():
    log = MadeUpLog()
    for sample, duration_ms in enumerate((1000, 3000, 9000)):
        one = experience(f"a/{sample}", group_size=3, spare=1, sample=sample, duration_ms=duration_ms)
        log.add("experiences", one)
        if sample < 2:
            log.add("ready", scored(one), key="a")
    log.add("steps", step(1, {"a/0": 0, "a/1": 0}))
    config = Config.model_validate({"rollout": {"samples": 2, "spare": 1}})
    report = report_of(log, config)
    assert report["long_tail"]["spare"] == {"rollouts": 1, "tokens_mean": 1.0, "seconds_mean": 9.0}
    summary = summary_of(log.of(*READ_ORDER), config)
    assert "came when their group was complete" in render(report, summary, config)


def test_time_of_trainer_and_explorers_is_summed_over_restarts():
    log = MadeUpLog()
    log.add("steps", step(1, {"a/0": 0}, step_s=1.0, publish_s=0.5, idle_s=0.5))
    log.add("steps", step(3, {"b/0": 0}, step_s=2.0, publish_s=0.5, idle_s=1.5))
    log.add("members", member("host:1", generating_s=1.0, rollouts=3))
    log.add("members", member("host:1", generating_s=4.0, rollouts=9))
    log.add("members", member("host:2", generating_s=2.0, waiting_s=1.0, rollouts=5))
    report = report_of(log)
    assert report["trainer"]["idle_share"] == pytest.approx(2 / 6, abs=1e-4)
    assert report["trainer"]["step_s"] == 1.5
    # Steps 1 and 3 end 2 s apart, and the first took 2 s.
    assert report["trainer"]["training_s"] == 4.0
    assert report["trainer"]["seconds"] == {"step": 3.0, "read": 0, "publish": 1.0, "checkpoint": 0, "idle": 2.0}
    assert report["explorers"]["generating_s"] == 6.0
    assert report["explorers"]["waiting_s"] == 1.0
    assert report["explorers"]["rollouts"] == 14


def test_transfers_of_weights_are_reported_as_steps_and_explorers_measured_them():
    log = MadeUpLog()
    assert report_of(log)["weights"] == {"announced": 0, "resync_s": 0, "pause_s": 0, "collective": None}
    for version in (0, 1, 1, 2):
        log.add("weights", weights(version))
    first = {"update_s": 0.5, "epochs": 1.0, "missed": 0.0, "members": 2.0, "bytes_per_s": 3e6, "wait_s": 0.25}
    second = {"update_s": 1.5, "epochs": 2.0, "missed": 1.0, "members": 1.0, "bytes_per_s": 5e6, "describe_s": 0.5}
    for number, measured in enumerate((first, {}, second), 1):
        metrics = {f"weights_{name}": value for name, value in measured.items()}
        log.add("steps", step(number, {f"a/{number}": 0}, **metrics))
    log.add("members", member("host:1", pause_s=0.5, resync_s=1.0))
    log.add("members", member("host:2", pause_s=0.25, resync_s=2.0))
    report = report_of(log)
    assert report["weights"] == {
        "announced": 3,
        "resync_s": 3.0,
        "pause_s": 0.75,
        "collective": {
            "updates": 2, "update_s_mean": 1.0, "update_s_max": 1.5, "epochs": 3, "missed": 1, "members_max": 2,
            "mb_per_s": 4.0, "trainer_wait_s": 0.75,
        },
    }  # fmt: skip
    page = render(report, summary_of(log.of(*READ_ORDER)), CONFIG)
    assert "Weight versions" in page
    assert "4 MB/s" in page


def test_throughput_is_distinct_experiences_over_the_time_that_they_span():
    log = MadeUpLog()
    for at_s, name in ((10, "a/0"), (12, "b/0"), (14, "c/0"), (14, "c/0")):
        log.add("experiences", experience(name), at_s=at_s)
    assert report_of(log)["throughput"] == {"experiences_per_s": 0.75}


def evaluated(log: MadeUpLog, version: int, responses: dict[str, str]) -> None:
    """Add answers to held-out tasks: ``responses`` by prompt, correct where they are ``right``."""
    for index, (prompt, response) in enumerate(responses.items()):
        answer = experience(f"eval-{version:08d}-{index:08d}/0", response, prompt=prompt)
        log.add("ready", scored(answer, float(response == "right")), key=answer.group_id)


def test_accuracy_before_and_after_comes_from_version_0_and_the_final_version():
    log = MadeUpLog()
    evaluated(log, 0, {"p": "wrong", "q": "wrong"})
    evaluated(log, 0, {"p": "wrong", "q": "wrong"})
    evaluated(log, 3, {"p": "wrong", "q": "right"})
    log.add("weights", weights(3))
    unfinished = report_of(log)
    assert unfinished["accuracy"] == {"before": 0.0, "after": None, "tasks": 2, "scored": True}
    assert unfinished["finished"] is False
    evaluated(log, 5, {"p": "right", "q": "right"})
    log.add("weights", weights(9, final=True, model="another"))
    log.add("weights", weights(5, final=True))
    finished = report_of(log)
    assert finished["accuracy"] == {"before": 0.0, "after": 1.0, "tasks": 2, "scored": True}
    assert finished["finished"] is True
    assert finished["experiences"]["evaluated"] == 6
    assert finished["series"]["accuracy"] == [[0, 0.0, 2], [3, 0.5, 2], [5, 1.0, 2]]


def test_a_run_is_unfinished_while_its_last_evaluation_is_unfinished():
    log = MadeUpLog()
    evaluated(log, 5, {"p": "right"})
    log.add("weights", weights(5, final=True))
    assert report_of(log)["finished"] is False
    assert report_of(log, Config.model_validate({"eval": {"tasks": 0}}))["finished"] is True


def test_a_failed_rollout_counts_as_a_wrong_answer():
    log = MadeUpLog()
    evaluated(log, 0, {"p": "right"})
    failed = experience("eval-00000000-00000001/0", "", finish_reason="error", error="deadline")
    log.add("ready", scored(failed, 1.0, cause="rollout_failed"), key=failed.group_id)
    assert report_of(log)["accuracy"]["before"] == 0.5


def test_wall_time_is_what_the_launcher_measured_or_else_what_the_log_spans():
    log = MadeUpLog()
    log.add("tasks", b"", at_s=100)
    log.add("steps", step(1, {}), at_s=130)
    assert report_of(log)["wall_s"] == 30.0
    assert report_of(log, wall_s=45.5)["wall_s"] == 45.5


def test_samples_pair_the_same_prompts_and_are_not_selected_by_result():
    log = MadeUpLog()
    evaluated(log, 0, {f"p{i}": "wrong" for i in range(40)})
    # The final evaluation may number its tasks in another order.
    evaluated(log, 4, {f"p{i}": "right" if i % 2 else "wrong" for i in reversed(range(40))})
    log.add("weights", weights(4, final=True))
    pairs = samples(summary_of(log.of(*READ_ORDER)), count=4)
    assert [before.prompt for before, _ in pairs] == ["p0", "p10", "p20", "p30"]
    assert all(before.prompt == after.prompt for before, after in pairs)


def test_a_report_that_did_not_read_the_whole_log_says_so():
    summary = summary_of([])
    assert report_content(summary, CONFIG, wall_s=None, versions={})["complete"] is True
    summary.complete = False
    report = report_content(summary, CONFIG, wall_s=None, versions={})
    assert report["complete"] is False
    assert "not read to its end" in render(report, summary, CONFIG)


def test_a_summary_of_a_part_of_the_log_is_not_complete(log_config: Config):
    with EventWriter(log_config, "test") as writer:
        writer.send("weights", WeightVersion("policy", 0, 0, "checkpoint", "w", "", 0, False, 0))
    assert read_summary(log_config).complete is True
    assert read_summary(log_config, within_s=-1.0).complete is False


def test_an_empty_log_gives_a_report_and_a_page():
    report = report_of(MadeUpLog())
    assert report["steps"] == 0
    assert report["accuracy"] == {"before": None, "after": None, "tasks": 0, "scored": True}
    assert "nothing was measured" in render(report, RunSummary(), CONFIG)


def test_a_learning_rate_that_changes_is_drawn():
    def page(*rates: float) -> str:
        log = MadeUpLog()
        for number, rate in enumerate(rates, start=1):
            log.add("steps", step(number, {f"a/{number}": 0}, learning_rate=rate))
        summary = summary_of(log.of(*READ_ORDER))
        return render(report_content(summary, CONFIG, wall_s=1, versions={}), summary, CONFIG)

    assert "Learning rate" not in page(1e-5, 1e-5)
    drawn = page(2e-5, 1e-5, 1e-6)
    assert "Learning rate" in drawn
    assert ">2e-05<" in drawn


class Tags(HTMLParser):
    """Collects tags, and attributes that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_loads_nothing_and_runs_nothing_that_a_model_wrote():
    log = MadeUpLog()
    evaluated(log, 0, {"<script>alert(1)</script>": "<img src=x onerror=alert(2)>", "q": "wrong"})
    evaluated(log, 2, {"<script>alert(1)</script>": "right", "q": "right"})
    log.add("weights", weights(2, final=True))
    for number in (1, 2):
        log.add("steps", step(number, {f"a/{number}": 0}, reward_mean=0.5, step_s=1.0, idle_s=1.0))
        log.add("experiences", experience(f"a/{number}"))
    summary = summary_of(log.of(*READ_ORDER))
    page = render(report_content(summary, CONFIG, wall_s=1, versions={}), summary, CONFIG)
    seen = Tags()
    seen.feed(page)
    assert seen.loads == []
    assert "script" not in seen.tags
    assert "img" not in seen.tags
    assert seen.tags.count("svg") == 4
    assert "&lt;script&gt;alert(1)" in page
