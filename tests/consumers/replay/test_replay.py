"""Tests of replays of real logs: the selected events, their order, the files, and equal weights each time."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from click.testing import Result
from selected_events import GROUPS_PER_STEP, SAMPLES, write_trainable_run
from typer.testing import CliRunner

from consumers.archiver import run as archive
from consumers.replay import ReplayError, SelectionError
from consumers.replay.reader import ReplayReader
from consumers.replay.selected_event import SelectedEvent
from consumers.replay.selection import Range, Selection, parse_offsets
from consumers.trainer import run as train_online
from infra.cli import app
from rft.config import Config
from rft.config_toml import masked, to_toml
from rft.errors import MissingRangeError
from rft.log.opening import open_log
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import Experience, Reward, ScoredExperience
from schemas.wire import from_wire
from tests.synthetic import make_tiny_model, publish, read_all, scored

GROUPS, STEPS = 8, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(embedded_broker: str, make_config: Callable[..., Config], tmp_path: Path, model: Path) -> Config:
    """The configuration of a run that is on the log and in an archive."""
    made = make_config(
        embedded_broker,
        run={"folder": str(tmp_path / "runs")},
        policy={"model": str(model)},
        trainer={"groups_per_step": GROUPS_PER_STEP, "learning_rate": 1e-2, "checkpoint_interval": 2},
        tasks={"options": {"min_word_len": 3, "max_word_len": 5}, "prompt_template": "<3> <4>{word}"},
        rollout={"max_tokens": 4},
        eval={"tasks": 5},
        log={"partitions": 2},
    )
    ensure_topics(made)
    write_trainable_run(made, groups=GROUPS, steps=STEPS)
    archive(made, threading.Event(), once=True)
    return made


def replay(config: Config, *arguments: str) -> Result:
    path = config.run.folder / "config.toml"
    path.write_text(to_toml(masked(config)))
    return CliRunner().invoke(app, ["replay", str(path), "--archive", config.archive_url, *arguments])


def trained(config: Config, *arguments: str) -> dict[str, Any]:
    result = replay(config, "--to", "train", "--json", *arguments)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def select(config: Config, selection: Selection, *, live: bool = False) -> list[SelectedEvent]:
    with open_log(config, None if live else config.archive_url) as view:
        return list(ReplayReader(config, view, selection).read())


def names(events: list[SelectedEvent]) -> list[str]:
    return [event.scored.experience.experience_id for event in events]


def test_the_log_and_its_archive_give_the_same_events_in_the_same_order(config: Config) -> None:
    for selection in (Selection(), Selection(steps=Range(1, 2)), Selection(where="reward > 0")):
        first = select(config, selection)
        assert [e.position for e in first] == [e.position for e in select(config, selection, live=True)]
        assert len(first) > 0


def test_steps_select_what_they_trained_in_their_order(config: Config) -> None:
    found = names(select(config, Selection(steps=Range(2, 3))))
    assert found == [f"train-{number:08d}/{sample}" for number in (4, 5, 2, 3) for sample in range(SAMPLES)]


@pytest.mark.parametrize(("text", "missing"), [("3:4", "step 4"), ("9:", "step 9"), ("0:9", "step 4")])
def test_steps_that_the_log_does_not_hold_are_named(config: Config, text: str, missing: str) -> None:
    with pytest.raises(ReplayError, match=f"{missing} of policy .* it has steps 1 to 3"):
        select(config, Selection(steps=Range.parse(text, "--steps")))


def test_all_conditions_hold_for_a_selected_event(config: Config) -> None:
    everything = select(config, Selection())
    assert len(everything) == GROUPS * SAMPLES
    times = sorted({event.timestamp_ms for event in everything})
    middle = times[len(times) // 2]
    found = select(
        config,
        Selection(
            offsets=parse_offsets(["1=2:"]), until_ms=middle, versions=Range(1, 2), where="sample != 3 and number > 1"
        ),
    )
    assert names(found) == names([
        e for e in everything
        if e.partition == 1 and e.offset >= 2 and e.timestamp_ms < middle and e.scored.experience.sample != 3
        and e.scored.experience.oldest_version in (1, 2) and e.scored.experience.number > 1
    ])  # fmt: skip


def test_offsets_that_the_log_does_not_hold_are_named(config: Config) -> None:
    with pytest.raises(MissingRangeError, match="partition 0"):
        select(config, Selection(offsets=parse_offsets(["0=3:500"])))


def test_an_experience_that_the_log_holds_twice_is_selected_once(config: Config) -> None:
    with EventWriter(config, "test") as writer:
        writer.send("ready", scored(0, 0, SAMPLES, reward=7.0)).get(10)
        writer.send("ready", scored(0, 0, SAMPLES, reward=8.0)).get(10)
    with open_log(config) as view:
        reader = ReplayReader(config, view, Selection())
        events = list(reader.read())
    assert len(set(names(events))) == len(events) == GROUPS * SAMPLES
    assert reader.counts.repeated == 2
    assert all(event.scored.reward <= 1 for event in events)


def test_two_replays_give_the_same_batches_and_bit_identical_weights(config: Config) -> None:
    first, second = (trained(config, "--epochs", "2") for _ in range(2))
    assert first["weights"]["sha256"] == second["weights"]["sha256"] != first["started_from"]["sha256"]
    assert first["batches_sha256"] == second["batches_sha256"]
    assert first["weights"]["folder"] != second["weights"]["folder"]
    assert first["steps"] == 2 * GROUPS // GROUPS_PER_STEP
    assert first["accuracy"]["tasks"] == 5
    assert 0 <= first["accuracy"]["after"] <= 1
    assert first["accuracy"]["before"] == second["accuracy"]["before"]
    model = Path(first["weights"]["folder"]) / "model.safetensors"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == first["weights"]["sha256"]
    folder = config.run.path / "replays" / first["name"]
    assert json.loads((folder / "replay.json").read_text()) == first
    assert len((folder / "steps.jsonl").read_text().splitlines()) == first["steps"]
    kept = sorted((folder / "checkpoints" / "policy").iterdir())
    assert [path.name for path in kept] == [
        "step-00000006",
        "step-00000008",
    ]


def test_the_replayed_steps_of_a_run_give_the_weights_of_the_run(
    embedded_broker: str, make_config: Callable[..., Config], tmp_path: Path, model: Path
) -> None:
    """Reads the live log, not an archive."""
    config = make_config(
        embedded_broker,
        run={"folder": str(tmp_path)},
        policy={"model": str(model)},
        trainer={"steps": 4, "groups_per_step": 2, "max_staleness": 9, "learning_rate": 1e-2, "warmup_steps": 3},
        eval={"tasks": 0},
    )
    publish(config, [scored(number, sample, SAMPLES) for number in range(9) for sample in range(SAMPLES)])
    train_online(config, threading.Event())
    (announced,) = [record for record in read_all(config, "weights") if getattr(record, "final", False)]
    path = tmp_path / "config.toml"
    path.write_text(to_toml(masked(config)))
    result = CliRunner().invoke(app, ["replay", str(path), "--steps", "1:", "--to", "train", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["weights"]["sha256"] == getattr(announced, "sha256", None)
    assert report["accuracy"] == {"before": None, "after": None, "tasks": 0}


def test_a_memory_limit_does_not_change_the_weights(config: Config) -> None:
    rich = trained(config)
    poor = trained(
        config.model_copy(update={"trainer": config.trainer.model_copy(update={"buffer_mb": 0.001})}), "--epochs", "1"
    )
    assert poor["weights"]["sha256"] == rich["weights"]["sha256"]


def test_another_selection_gives_other_weights(config: Config) -> None:
    whole = trained(config)
    some = trained(config, "--where", "number < 6")
    assert some["trained"] == 6 * SAMPLES < whole["trained"]
    assert some["weights"]["sha256"] != whole["weights"]["sha256"]


def test_a_replay_can_start_from_other_weights(config: Config) -> None:
    first = trained(config, "--name", "first")
    second = trained(config, "--weights", first["weights"]["folder"])
    assert second["started_from"]["sha256"] == first["weights"]["sha256"] != second["weights"]["sha256"]


def test_rescoring_changes_rewards_and_so_the_weights(config: Config, tmp_path: Path) -> None:
    recorded = trained(config)
    other = config.model_copy(
        update={
            "processor": config.processor.model_validate(
                {"rewards": [{"function": "length_penalty", "options": {"free": 1, "limit": 8}}]}
            )
        }
    )
    assert trained(other)["weights"]["sha256"] == recorded["weights"]["sha256"]
    rescored = trained(other, "--rescore")
    assert rescored["rewards"] == "rescored"
    assert rescored["weights"]["sha256"] != recorded["weights"]["sha256"]
    target = tmp_path / "rescored.jsonl"
    assert replay(other, "--rescore", "--where", "reward != recorded_reward", "--to", str(target)).exit_code == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert rows
    assert all(row["rewards"] == {"length_penalty": row["reward"]} for row in rows)
    assert all(row["reward"] != row["recorded_reward"] for row in rows)


def test_the_newest_revision_of_an_external_reward_replaces_the_recorded_one(config: Config, tmp_path: Path) -> None:
    with EventWriter(config, "test") as writer:
        for value, revision in ((5.0, 2), (9.0, 1), (6.0, 2)):
            writer.send(
                "rewards", Reward("train-00000001/2", "train-00000001", "human", value, 1, revision=revision)
            ).get(10)
    archive(config, threading.Event(), once=True)
    target = tmp_path / "revised.jsonl"
    missing = replay(config, "--latest-rewards", "--to", str(target))
    assert isinstance(missing.exception, ReplayError)
    assert "processor.external.required" in str(missing.exception)
    result = replay(config, "--latest-rewards", "--to", str(target), "--processor.external.required", '["human"]')
    assert result.exit_code == 0, result.output
    rows = {row["experience_id"]: row for row in map(json.loads, target.read_text().splitlines())}
    assert rows["train-00000001/2"]["reward"] == 5.0
    assert rows["train-00000001/2"]["rewards"] == {"human": 5.0}
    assert rows["train-00000001/2"]["verdict"] == "train"
    assert rows["train-00000000/0"]["verdict"] == "filtered"
    assert rows["train-00000000/0"]["cause"] == "reward_missing"


def test_a_step_that_names_another_event_stops_the_replay(config: Config) -> None:
    entries = write_trainable_run(config, groups=2, steps=1)
    first, second = entries[0].trained[:2]
    wrong = changed(entries[0], trained=(changed(first, offset=second.offset),))
    with EventWriter(config, "test") as writer:
        writer.send("steps", wrong).get(10)
    with pytest.raises(ReplayError, match=f"{first.experience_id}, but .* is there"):
        select(config, Selection(steps=Range(1, 1)), live=True)


@pytest.mark.parametrize("suffix", ["jsonl", "avro", "parquet"])
def test_files_hold_the_selected_events_and_equal_selections_give_equal_bytes(
    config: Config, tmp_path: Path, suffix: str
) -> None:
    events = select(config, Selection(where="reward > 0"))
    targets = [tmp_path / "new" / f"{name}.{suffix}" for name in ("one", "two")]
    for target in targets:
        result = replay(config, "--where", "reward > 0", "--to", str(target))
        assert result.exit_code == 0, result.output
        assert f"{len(events)} events in {target}" in result.output
    assert targets[0].read_bytes() == targets[1].read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [target.name for target in targets]
    assert READERS[suffix](targets[0]) == [event.scored for event in events]


def read_avro(path: Path) -> list[ScoredExperience]:
    with path.open("rb") as file:
        return [from_wire(ScoredExperience, wire) for wire in fastavro.reader(file)]  # type: ignore[misc]


def read_json_lines(path: Path) -> list[ScoredExperience]:
    return [unrow(json.loads(line)) for line in path.read_text().splitlines()]


def read_parquet(path: Path) -> list[ScoredExperience]:
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    return [unrow(row | {"rewards": dict(row["rewards"])}) for row in rows]


def unrow(row: dict[str, Any]) -> ScoredExperience:
    """Return the event of a row."""
    types = {"tokens": np.int32, "action_mask": np.uint8, "logprobs": np.float32, "versions": np.int32}
    values = {name: np.array(row[name], types[name]) if name in types else row[name] for name in row}
    experience = Experience(**{
        name: values["given_reward" if name == "reward" else name] for name in Experience.__slots__
    })  # fmt: skip
    rest = {name: values[name] for name in ScoredExperience.__slots__ if name != "experience"}
    return ScoredExperience(experience=experience, **rest)


READERS = {"avro": read_avro, "jsonl": read_json_lines, "parquet": read_parquet}


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--to", "x.csv"], ReplayError, "ends in .jsonl, .parquet, .avro, or --to train"),
        (["--to", "train", "--where", "number > 99"], ReplayError, "32 events read, 0 are selected"),
        (["--to", "train", "--where", "sample == 0"], ReplayError, "group_too_small"),
        (["--to", "train", "--where", "nope"], SelectionError, "there is no field nope"),
        (["--to", "train", "--offsets", "7=1:2"], SelectionError, "no partition 7"),
    ],
)
def test_an_impossible_replay_is_refused_with_its_cause(
    config: Config, arguments: list[str], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    result = replay(config, *arguments)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)
    assert not (config.run.path / "replays" / "replay-1").exists()


def test_a_name_that_is_taken_and_training_options_without_training_are_refused(config: Config) -> None:
    (config.run.path / "replays" / "mine").mkdir(parents=True)
    assert "mine exists" in str(replay(config, "--to", "train", "--name", "mine").exception)
    assert replay(config, "--to", "o.jsonl", "--epochs", "2").exit_code == 2
