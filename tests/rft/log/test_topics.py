"""Topics are created as designed, by any number of processes at once, and contradictions are named."""

from __future__ import annotations

import threading

import pytest
from brokers import ConfigMaker

from rft.config import Config
from rft.errors import TopicError
from rft.log.clients import make_admin
from rft.log.topics import ENTITIES, contradictions, ensure_topics, topic_name
from schemas.events import RECORDS, Record


def described(config: Config) -> dict[str, int]:
    """Return the number of partitions by entity."""
    admin = make_admin(config, "test")
    topics = admin.describe_topics([topic_name(config, entity) for entity in ENTITIES])
    admin.close()
    return {topic["name"].split(".")[-2]: len(topic["partitions"]) for topic in topics if not topic["error_code"]}


def test_all_topics_are_created_and_a_second_call_creates_none(any_broker: str, make_config: ConfigMaker) -> None:
    config = make_config(any_broker, log={"partitions": 3})
    created = ensure_topics(config)
    assert len(created) == len(ENTITIES)
    keyed = dict.fromkeys(("tasks", "experiences", "rewards", "ready", "dlq", "waiting", "turns", "sessions"), 3)
    assert described(config) == keyed | {"weights": 1, "members": 1, "steps": 1}
    assert ensure_topics(config) == []


def test_many_processes_may_create_them_at_once(any_broker: str, make_config: ConfigMaker) -> None:
    config = make_config(any_broker)
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(ensure_topics(config))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(ENTITIES)


def test_settings_reach_the_broker(any_config: Config) -> None:
    admin = make_admin(any_config, "test")
    assert contradictions(admin, any_config) == []
    stricter = any_config.model_copy(update={"log": any_config.log.model_copy(update={"audit_retention_hours": 1e6})})
    assert len(contradictions(admin, stricter)) == 2
    admin.close()


@pytest.mark.parametrize(
    ("created_with", "asked_for", "message"),
    [
        ({"partitions": 2}, {"partitions": 4}, r"tasks\.v1: partitions is 2, expected 4; set log\.partitions = 2"),
        (
            {"experience_retention_hours": 1},
            {"experience_retention_hours": 2},
            r"rewards\.v1: retention\.ms is 3600000, expected 7200000; run kafka-configs\.sh",
        ),
        (
            {"max_message_bytes": 1024},
            {"max_message_bytes": 8 * 1024 * 1024},
            r"ready\.v1: max\.message\.bytes is \d+, expected \d+",
        ),
    ],
)
def test_a_contradiction_names_topic_setting_found_expected_and_remedy(
    any_broker: str, make_config: ConfigMaker, created_with: dict[str, int], asked_for: dict[str, int], message: str
) -> None:
    before = make_config(any_broker, log=created_with)
    ensure_topics(before)
    after = make_config(any_broker, log={"namespace": before.log.namespace, **asked_for})
    with pytest.raises(TopicError, match=message):
        ensure_topics(after)


def test_a_deleted_policy_where_the_design_compacts_is_named(any_broker: str, make_config: ConfigMaker) -> None:
    config = make_config(any_broker)
    admin = make_admin(config, "test")
    wrong = {"num_partitions": 1, "replication_factor": 1, "configs": {"cleanup.policy": "delete"}}
    admin.create_topics({topic_name(config, "weights"): wrong})
    admin.close()
    with pytest.raises(TopicError, match=r"weights\.v1: cleanup\.policy is delete, expected compact"):
        ensure_topics(config)


def test_keeping_more_than_asked_is_no_contradiction(any_broker: str, make_config: ConfigMaker) -> None:
    before = make_config(any_broker, log={"experience_retention_hours": 100, "max_message_bytes": 9_000_000})
    ensure_topics(before)
    ensure_topics(make_config(any_broker, log={"namespace": before.log.namespace, "experience_retention_hours": 10}))


@pytest.mark.kafka
def test_the_error_for_too_many_replicas_says_what_to_set(kafka_broker: str, make_config: ConfigMaker) -> None:
    with pytest.raises(TopicError, match=r"Set log\.replication_factor \(3\)"):
        ensure_topics(make_config(kafka_broker, log={"replication_factor": 3}))


@pytest.mark.parametrize("record", RECORDS)
def test_every_record_has_one_topic(record: type[Record]) -> None:
    assert [entity.record for entity in ENTITIES.values()].count(record) == 1


def test_an_unknown_entity_is_named() -> None:
    with pytest.raises(ValueError, match="no topic for 'task'"):
        topic_name(Config(), "task")
