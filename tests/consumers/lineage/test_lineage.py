"""Lineage leads from weights back to the events that made them, and from an event to the weights that it changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from consumers.lineage import trace_experience, trace_task, trace_weights
from consumers.lineage.facts import Span, spans
from consumers.lineage.queries import UnknownError
from infra.cli import app
from rft.config import Config
from rft.config_toml import masked, to_toml
from rft.log.dead_letters import dead_letter_headers
from rft.log.opening import open_log
from rft.log.topics import topic_name
from rft.log.writer import EventWriter
from schemas.codec import encode
from schemas.events import Experience
from tests.consumers.written_runs import experience, write_run


def test_weights_name_the_steps_since_the_previous_version_and_all_their_events(any_config: Config) -> None:
    write_run(any_config)
    with open_log(any_config) as view:
        lineage = trace_weights(any_config, view, 2)
    assert (lineage.previous, lineage.total_steps, lineage.total_experiences) == (1, 2, 12)
    (step,) = lineage.steps
    assert (step.step, step.from_version, step.to_version, step.digest) == (2, 1, 2, "d2")
    ids = [f"train-{number:08d}/{sample}" for number in (2, 3) for sample in range(3)]
    assert [one.experience_id for one in step.experiences] == ids
    assert step.experiences[0].spans == [Span(0, 2, 3), Span(1, 3, 4)]
    assert step.experiences[5].response == "answer 2"


def test_the_first_weights_have_no_steps(log_config: Config) -> None:
    write_run(log_config, steps=1)
    with open_log(log_config) as view:
        lineage = trace_weights(log_config, view, 0)
    assert (lineage.previous, lineage.steps, lineage.total_steps) == (None, [], 0)


def test_an_experience_names_the_weights_that_wrote_it_and_its_outcome(any_config: Config) -> None:
    write_run(any_config)
    with open_log(any_config) as view:
        lineage = trace_experience(any_config, view, "train-00000004/1")
    assert lineage.outcome == "trained by policy in step 3"
    assert lineage.spans == [Span(1, 2, 3), Span(2, 3, 4)]
    assert (lineage.verdict, lineage.reward, lineage.rewards) == ("train", 0.5, {"exact_match": 0.5})
    (use,) = lineage.uses
    assert (use.step, use.from_version, use.to_version) == (3, 2, 3)
    assert [(copy.partition, copy.offset) for copy in lineage.ready] == [(use.partition, use.offset)]
    assert len(lineage.published) == 1


def test_a_task_names_all_its_experiences(log_config: Config) -> None:
    write_run(log_config)
    with EventWriter(log_config, "test") as writer:
        writer.send("experiences", experience(3, 1, 1))
    with open_log(log_config) as view:
        lineage = trace_task(log_config, view, "train-00000003")
    assert (lineage.number, lineage.prompt, lineage.min_version) == (3, "prompt 3", 1)
    assert [one.outcome for one in lineage.experiences] == ["trained by policy in step 2"] * 3
    assert [len(one.published) for one in lineage.experiences] == [1, 2, 1]


def test_a_waiting_experience_and_a_dead_letter_are_named_as_such(log_config: Config) -> None:
    with EventWriter(log_config, "test") as writer:
        writer.send("experiences", experience(7, 0, 0))
        dead = experience(7, 1, 0)
        position = writer.send("experiences", dead).get(10)
        headers = dead_letter_headers(
            None, stage="validate", error=ValueError("not valid"), topic=topic_name(log_config, "experiences"),
            partition=position.partition, offset=position.offset, now_ms=1,
        )  # fmt: skip
        writer.send_bytes("dlq", encode(dead), key=b"train-00000007", headers=headers)
    with open_log(log_config) as view:
        lineage = trace_task(log_config, view, "train-00000007")
    assert lineage.number is None
    assert [one.outcome for one in lineage.experiences] == ["waiting", "dead letter: ValueError: not valid"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--weights", "9"], "holds no version 9 of policy; it holds versions 0 to 1"),
        (["--step", "9"], "holds no step 9 of policy; it holds steps 1 to 1"),
        (["--experience", "x/1"], "holds no experience x/1"),
        (["--task", "x"], "holds no task x"),
    ],
)
def test_the_error_for_something_unknown_says_what_the_log_holds(
    log_config: Config, tmp_path: Path, words: list[str], expected: str
) -> None:
    write_run(log_config, steps=1)
    result = CliRunner().invoke(app, ["lineage", config_file(log_config, tmp_path), *words])
    assert isinstance(result.exception, UnknownError)
    assert expected in str(result.exception)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--weights", "1"], "train-00000001/2"),
        (["--step", "2"], "version 1 → 2"),
        (["--experience", "train-00000002/0"], "step 2 trained it, staleness 0 (weights 1 → 2)"),
        (["--task", "train-00000000"], "trained by policy in step 1"),
    ],
)
def test_the_command_shows_tables_and_json(log_config: Config, tmp_path: Path, words: list[str], shown: str) -> None:
    write_run(log_config, steps=2)
    path = config_file(log_config, tmp_path)
    assert shown in CliRunner().invoke(app, ["lineage", path, *words]).output
    assert isinstance(json.loads(CliRunner().invoke(app, ["lineage", path, *words, "--json"]).output), dict)


def test_exactly_one_option_must_be_given(log_config: Config, tmp_path: Path) -> None:
    path = config_file(log_config, tmp_path)
    assert CliRunner().invoke(app, ["lineage", path]).exit_code == 2
    assert CliRunner().invoke(app, ["lineage", path, "--step", "1", "--weights", "1"]).exit_code == 2


@given(st.lists(st.integers(-1, 3), max_size=20))
def test_spans_give_the_version_of_every_token_that_a_policy_wrote(versions: list[int]) -> None:
    mask = np.array([version >= 0 for version in versions], np.uint8)
    one = Experience(
        "g/0", "g", 0, 0, "train", 1, "p", "r", None, 1, "e", "m",
        tokens=np.zeros(len(versions), np.int32), action_mask=mask, versions=np.array(versions, np.int32),
    )  # fmt: skip
    written_by = {token: span.version for span in spans(one) for token in range(span.start, span.end)}
    assert written_by == {token: version for token, version in enumerate(versions) if version >= 0}


def config_file(config: Config, folder: Path) -> str:
    path = folder / "config.toml"
    path.write_text(to_toml(masked(config)))
    return str(path)
