"""An explorer publishes the rows of a rollout in order, and its task is finished with the last row of each sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kafka import TopicPartition
from rewriting_workflow import TEMPLATE, TURNS
from transformers import AutoTokenizer

from rft.config import Config
from rft.log.clients import make_consumer
from rft.log.topics import consumer_group, topic_name
from rft.log.writer import EventWriter
from rft.stream.validate import validate
from schemas.events import Experience
from tests.producers.chat_model import make_chat_model
from tests.producers.roles import Log, RoleProcess, announce, issue, task

TASKS, SAMPLES = 6, 2


def test_rows_come_in_order_and_all_tasks_are_finished(role_config: Callable[..., Config], tmp_path: Path) -> None:
    model = make_chat_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    config = role_config(rollout={"workflow": "rewriting_workflow:rewriting", "deadline_s": 60.0})
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"model": str(model)})})
    with (
        EventWriter(config, "test") as writer,
        Log(config, "experiences", "members") as log,
        RoleProcess("explorer", config) as explorer,
    ):
        announce(config, writer, model, 0)
        issue(writer, [task(number, samples=SAMPLES) for number in range(TASKS)])
        found = log.wait("experiences", lambda found: len(found) >= TASKS * SAMPLES * TURNS)
        code, _ = explorer.terminate()
        assert code == 0
    samples: dict[str, list[Experience]] = defaultdict(list)
    for one in found:
        validate(one, one.group_id.encode())
        samples[one.sample_id].append(one)
    assert len(samples) == TASKS * SAMPLES
    for rows in samples.values():
        assert [one.row for one in rows] == [0, 1, 2]
        assert {(one.rows, one.attempt, one.reward) for one in rows} == {(3, rows[0].attempt, 0.5)}
        assert [bool(np.isnan(one.turn_rewards).all()) for one in rows] == [True, False, True]
    assert committed_tasks(config) == TASKS


def committed_tasks(config: Config) -> int:
    """Return how many tasks the group of explorers has committed."""
    topic = topic_name(config, "tasks")
    consumer = make_consumer(config, "test", consumer_group(config, "explorers"))
    try:
        partitions = [TopicPartition(topic, partition) for partition in range(config.log.partitions)]
        return sum(consumer.committed(partition) or 0 for partition in partitions)
    finally:
        consumer.close()
