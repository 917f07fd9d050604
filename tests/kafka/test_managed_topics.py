"""Topics that others create and name: nothing is created or altered, what is missing is named, and definitions fit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import ConfigMaker
from kafka_scripts import run_script

from consumers.archiver import run as run_archiver
from consumers.audit import audit
from infra.definitions.base import topic_definitions
from infra.definitions.formats import make_target, open_format
from infra.doctor.diagnose import diagnose
from rft.config import Config, ImportConfig
from rft.data.recorded import Recorded
from rft.errors import TopicError
from rft.log.access import prepare_topics
from rft.log.clients import make_admin
from rft.log.opening import open_log
from rft.log.reader import EventReader
from rft.log.topics import ENTITIES, ensure_topics, topic_name
from rft.log.writer import EventWriter
from schemas.events import ScoredExperience
from tests.consumers.processors.processor_worker import experience, read_until
from tests.kafka.test_foreign_topics import settings_of

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

NAMES = {entity: f"team-a.{entity}_of_the_run" for entity in ENTITIES}


def existing(config: Config) -> set[str]:
    admin = make_admin(config, "test")
    try:
        return set(admin.list_topics())
    finally:
        admin.close()


def failures(config: Config) -> list[str]:
    return [f"{finding.what}; {finding.advice}" for finding in diagnose(config) if finding.level == "fail"]


def managed(config: Config) -> Config:
    """Return the configuration of those who create the topics."""
    return config.model_copy(update={"log": config.log.model_copy(update={"manage_topics": True})})


def test_a_missing_topic_is_an_error_that_says_the_command_and_nothing_is_created(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = make_config(kafka_broker, log={"manage_topics": False}, policy={"model": str(tmp_path / "none")})
    message = (
        r"tasks\.v1: UnknownTopicOrPartition; log\.manage_topics is false, so create the topics: `rft topics CONFIG"
    )
    with pytest.raises(TopicError, match=message):
        ensure_topics(config)
    with pytest.raises(TopicError, match=r"ready\.v1: Unknown"):
        prepare_topics(config, "trainer")
    assert any("tasks.v1: UnknownTopicOrPartition; log.manage_topics is false" in line for line in failures(config))
    assert not existing(config) & {topic_name(config, entity) for entity in ENTITIES}


def test_a_role_asks_only_for_its_own_topics(kafka_broker: str, make_config: ConfigMaker) -> None:
    config = make_config(kafka_broker, log={"manage_topics": False})
    ensure_topics(managed(config), ["tasks", "experiences"])
    assert prepare_topics(config, "importer") == []
    with pytest.raises(TopicError, match="ready"):
        prepare_topics(config, "processor")


def test_the_printed_commands_create_what_the_start_and_the_doctor_accept(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path
) -> None:
    log = {"manage_topics": False, "partitions": 2, "topics": {"dlq": f"errors-{tmp_path.name}"}}
    settings = {"segment.bytes": 1_048_576, "experiences": {"compression.type": "lz4"}}
    config = make_config(
        kafka_broker, log={**log, "topic_settings": settings}, policy={"model": str(tmp_path / "none")}
    )
    text = open_format("shell").topics(topic_definitions(config), make_target(config, "any"))
    printed = run_script(text, tmp_path, kafka_broker)
    assert printed.count("Created topic") == len(ENTITIES)
    assert ensure_topics(config) == []
    assert not [line for line in failures(config) if "topic" in line]
    assert settings_of(config, "experiences")["compression.type"] == "lz4"
    assert settings_of(config, "members")["cleanup.policy"] == "compact,delete"
    assert settings_of(config, "steps")["segment.bytes"] == "1048576"
    assert f"errors-{tmp_path.name}" in existing(config)


def test_settings_that_are_passed_on_reach_the_topics_and_later_differences_are_named(
    kafka_broker: str, make_config: ConfigMaker
) -> None:
    settings = {"segment.bytes": "1048576", "ready": {"segment.bytes": "2097152", "flush.messages": 7}}
    config = make_config(kafka_broker, log={"topic_settings": settings})
    ensure_topics(config)
    found = {entity: settings_of(config, entity) for entity in ("ready", "steps")}
    assert {entity: one["segment.bytes"] for entity, one in found.items()} == {"ready": "2097152", "steps": "1048576"}
    assert found["ready"]["flush.messages"] == "7"
    changed = make_config(
        kafka_broker, log={"namespace": config.log.namespace, "topic_settings": {"steps": {"segment.bytes": 4194304}}}
    )
    message = (
        r"steps\.v1: segment\.bytes is 1048576, expected 4194304; run kafka-configs\.sh .*"
        r"--add-config segment\.bytes=4194304, change log\.topic_settings, or"
    )
    with pytest.raises(TopicError, match=message):
        ensure_topics(changed)


def test_a_setting_that_the_broker_does_not_know_is_refused_with_its_answer(
    kafka_broker: str, make_config: ConfigMaker
) -> None:
    config = make_config(kafka_broker, log={"topic_settings": {"segment.bites": "1"}})
    with pytest.raises(TopicError, match=r"\(.*Unknown topic config name: segment\.bites.*Check log\.topic_settings"):
        ensure_topics(config)


def test_all_parts_of_a_run_use_the_names_of_single_topics(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[..., Any], tmp_path: Path
) -> None:
    """Processor, dead letters, archive, audit, and the import of the archive under other names."""
    names = {entity: f"{name}.{tmp_path.name}" for entity, name in NAMES.items()}
    config = make_config(
        kafka_broker, log={"topics": names, "partitions": 1}, run={"folder": str(tmp_path), "name": "test"}
    )
    ensure_topics(config)
    assert not [name for name in existing(config) if name.startswith(config.log.namespace)]
    worker = start_worker(config)
    with EventWriter(config, "test") as writer, EventReader(config, "test", ["ready", "dlq"]) as reader:
        writer.send_bytes("experiences", b"junk", key=b"k")
        for sample in range(4):
            writer.send("experiences", experience(0, sample))
        writer.flush()
        events = read_until(reader, lambda seen: len(seen) >= 5, 60, lambda: worker.log)
    (letter,) = (event for event in events if event.entity == "dlq")
    assert dict(letter.headers)["rft.error.topic"] == names["experiences"].encode()
    run_archiver(config, threading.Event(), once=True)
    assert (tmp_path / "test" / "archive" / names["ready"]).is_dir()
    for archive in (None, config.archive_url):
        with open_log(config, archive) as view:
            report = audit(config, view)
        assert report.ok, report
    other = make_config(kafka_broker)
    source = ImportConfig(name="earlier", path=Path(config.archive_url), kind="experiences")
    found = [scored for _, scored in Recorded(other, source).numbered()]
    assert len([one for one in found if isinstance(one, ScoredExperience)]) == 4
