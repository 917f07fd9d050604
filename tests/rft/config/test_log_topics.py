"""Names and settings of topics are checked before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from rft.config import Config
from rft.config.topic_settings import OURS
from rft.log.topics import topic_name, topic_settings


def log(**fields: Any) -> Config:
    return Config.model_validate({"log": fields})


def test_single_topics_have_names_of_their_own() -> None:
    config = log(namespace="a", topics={"experiences": "team.exp"})
    assert [topic_name(config, entity) for entity in ("experiences", "ready")] == ["team.exp", "a.ready.v1"]


@pytest.mark.parametrize("name", ["rft.tasks.v1", "same"])
def test_two_entities_cannot_share_a_topic(name: str) -> None:
    with pytest.raises(ValueError, match=f"tasks and experiences have the same name, {name}; give each its own"):
        log(topics={"experiences": name, **({"tasks": name} if name == "same" else {})})


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 250])
def test_a_name_that_kafka_refuses_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"log\.topics\.ready"):
        log(topics={"ready": name})


def test_an_unknown_entity_is_refused() -> None:
    with pytest.raises(ValueError, match="'tasks', 'experiences'"):
        log(topics={"experience": "x"})


def test_stages_on_a_cluster_cannot_share_named_topics() -> None:
    sections = {
        "broker": {"kind": "external", "bootstrap_servers": "x:1"},
        "log": {"topics": {"ready": "x"}},
        "stages": [{"name": "a"}],
    }
    with pytest.raises(ValueError, match=r"remove log\.topics, or run each stage by itself"):
        Config.model_validate(sections)
    assert Config.model_validate(sections | {"broker": {"kind": "kafka"}}).of_stage(0).log.topics == {"ready": "x"}


def test_topics_of_our_own_broker_are_ours_to_create() -> None:
    with pytest.raises(ValueError, match=r"log\.manage_topics = false, but the broker is our own"):
        log(manage_topics=False)


def test_settings_of_one_topic_override_those_of_all() -> None:
    config = log(topic_settings={"segment.ms": 5, "preallocate": True, "ready": {"segment.ms": "7"}})
    assert topic_settings(config.log, "ready")["segment.ms"] == "7"
    assert topic_settings(config.log, "waiting")["segment.ms"] == "5"
    assert topic_settings(config.log, "tasks")["preallocate"] == "true"


@pytest.mark.parametrize("setting", OURS)
@pytest.mark.parametrize("topic", [None, "steps"])
def test_settings_that_guarantees_depend_on_are_refused_with_the_reason(setting: str, topic: str | None) -> None:
    with pytest.raises(ValueError, match=f"{setting} cannot be set here: ") as caught:
        log(topic_settings={setting: "1"} if topic is None else {topic: {setting: "1"}})
    assert OURS[setting] in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experience": {"segment.ms": "1"}}, "experience is no topic; topics are tasks"),
        ({"segment": {"ms": 1}}, "segment is no topic; .* Put a setting's name with dots in quotes"),
        ({"steps": "1"}, "steps: is a topic, so it takes a table"),
        ({"segment.ms": [1]}, r"segment\.ms = \[1\]: write the value as Kafka does"),
    ],
)
def test_what_is_no_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log(topic_settings=settings)
