"""``rft audit`` on real logs and archives prints what it found, and its exit code says whether all is well."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from consumers.archiver import run as archive
from consumers.audit import audit
from consumers.audit.audit import committed_by_processors
from infra.cli import app
from rft.config import Config
from rft.config_toml import masked, to_toml
from rft.log.archive import ArchiveStore, FileWriter
from rft.log.archive.view import ArchiveView
from rft.log.clients import make_consumer
from rft.log.events import Event
from rft.log.opening import open_log
from rft.log.topics import topic_name
from rft.log.writer import EventWriter
from schemas.codec import encode
from schemas.events import Experience, TrainingStep
from tests.consumers.written_runs import experience, write_run


def rft_audit(config: Config, folder: Path, *words: str) -> tuple[int, str]:
    path = folder / "config.toml"
    path.write_text(to_toml(masked(config)))
    result = CliRunner().invoke(app, ["audit", str(path), *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_live_log_that_balances_exits_with_0(any_config: Config, tmp_path: Path) -> None:
    write_run(any_config)
    code, text = rft_audit(any_config, tmp_path)
    assert code == 0, text
    assert "the log balances" in text
    code, text = rft_audit(any_config, tmp_path, "--json")
    assert json.loads(text)["published"]["scored"] == 18


def test_a_live_log_that_does_not_balance_exits_with_1_and_names_the_id(any_config: Config, tmp_path: Path) -> None:
    write_run(any_config, foreign=True)
    code, text = rft_audit(any_config, tmp_path)
    assert code == 1
    assert "the log does not balance" in text
    assert "it says train-00000004/0 (task 4), but there train-00000004/1 (task 4) is" in " ".join(text.split())


def test_an_event_that_the_processors_committed_past_without_a_trace_is_lost(any_config: Config) -> None:
    write_run(any_config, steps=1)
    with EventWriter(any_config, "test") as writer:
        position = writer.send("experiences", experience(9, 0, 0)).get(10)
    with open_log(any_config) as view:
        assert audit(any_config, view, committed_by_processors(any_config, view)).ok
    commit(any_config, position.partition, position.offset + 1)
    with open_log(any_config) as view:
        report = audit(any_config, view, committed_by_processors(any_config, view))
    assert [(p.kind, p.experience_id) for p in report.problems] == [("lost", "train-00000009/0")]


def commit(config: Config, partition: int, offset: int) -> None:
    """Commit as a processor does."""
    from kafka import OffsetAndMetadata, TopicPartition

    consumer = make_consumer(config, "processor", group=f"{config.log.namespace}.processors")
    where = TopicPartition(topic_name(config, "experiences"), partition)
    consumer.assign([where])
    consumer.commit({where: OffsetAndMetadata(offset, "", -1)})
    consumer.close()


@pytest.fixture
def archived(log_config: Config, tmp_path: Path) -> Config:
    """Archive a run."""
    write_run(log_config)
    settings: dict[str, Any] = {"archive": log_config.archive.model_copy(update={"url": str(tmp_path / "archive")})}
    config = log_config.model_copy(update=settings)
    archive(config, threading.Event(), once=True)
    return config


def rewrite(config: Config, entity: str, change: Any) -> None:
    """Put each partition's events, changed, in place of its files, under the same offsets."""
    store, topic = ArchiveStore(config.archive_url), topic_name(config, entity)
    with ArchiveView(config, config.archive_url) as view:
        ends, events = view.end_offsets(entity), change(list(view.read(entity)))
    for files in store.files(topic).values():
        for file in files:
            (Path(config.archive_url) / file.path).unlink()
    for partition, end in ends.items():
        writer = FileWriter(store, topic, partition, 0, "null")
        for event in sorted((e for e in events if e.partition == partition), key=lambda e: e.offset):
            writer.write(event)
        writer.finish(max([end, *(e.offset + 1 for e in events if e.partition == partition)]))


def test_an_archive_that_was_tampered_with_names_exactly_what_was_done(archived: Config, tmp_path: Path) -> None:
    assert rft_audit(archived, tmp_path, "--archive", archived.archive_url)[0] == 0
    removed, duplicated = "train-00000001/2", "train-00000003/0"

    def remove_one_and_double_another(events: list[Event]) -> list[Event]:
        twin = next(e for e in events if e.record(Experience).experience_id == duplicated)
        last = max(e.offset for e in events if e.partition == twin.partition)
        copy = Event("experiences", twin.partition, last + 1, twin.timestamp_ms, twin.key, twin.value, twin.headers)
        return [*(e for e in events if e.record(Experience).experience_id != removed), copy]

    def name_a_foreign_event(events: list[Event]) -> list[Event]:
        from dataclasses import replace

        step = events[-1].record(TrainingStep)
        foreign = replace(step.trained[0], experience_id="train-00009999/0", number=9999)
        return [*events[:-1], replace(events[-1], value=encode(replace(step, trained=(foreign, *step.trained[1:]))))]

    rewrite(archived, "experiences", remove_one_and_double_another)
    rewrite(archived, "steps", name_a_foreign_event)
    code, text = rft_audit(archived, tmp_path, "--json", "--archive", archived.archive_url)
    assert code == 1
    found = json.loads(text)
    assert sorted((p["kind"], p["experience_id"]) for p in found["problems"]) == [
        ("foreign_event", "train-00009999/0"),
        ("never_published", removed),
    ]
    assert [d["experience_id"] for d in found["duplicates"]] == [duplicated]
    assert found["published"]["balanced"] is False
    assert found["trained"][0]["balanced"] is False
