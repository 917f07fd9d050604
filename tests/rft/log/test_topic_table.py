"""`rft topics` shows what is on the log."""

from __future__ import annotations

import random
import time

from brokers import ConfigMaker

from rft.config import Config
from rft.log.clients import make_consumer
from rft.log.topic_table import topic_table
from rft.log.topics import ENTITIES, topic_name
from rft.log.writer import EventWriter


def test_topics_that_do_not_exist_are_listed_as_missing(any_broker: str, make_config: ConfigMaker) -> None:
    rows = topic_table(make_config(any_broker))
    assert [row.entity for row in rows] == list(ENTITIES)
    assert not any(row.exists for row in rows)


def test_events_sizes_and_lags_are_counted(any_config: Config) -> None:
    topic, group = topic_name(any_config, "dlq"), f"{any_config.log.namespace}.people"
    with EventWriter(any_config, "writer") as writer:
        for n in range(500):
            writer.send_bytes("dlq", random.Random(n).randbytes(1000), key=f"{n}".encode())
    consumer = make_consumer(any_config, "people", group)
    consumer.subscribe([topic])
    read, deadline = 0, time.monotonic() + 60
    while read < 200 and time.monotonic() < deadline:
        read += sum(len(batch) for batch in consumer.poll(200, max_records=50).values())
    consumer.commit()
    consumer.close()
    rows = {row.entity: row for row in topic_table(any_config)}
    dlq = rows["dlq"]
    assert dlq.exists
    assert (dlq.topic, dlq.partitions, dlq.events) == (topic, any_config.log.partitions, 500)
    assert dlq.lags == {group: 500 - read}
    assert dlq.size_bytes is None or dlq.size_bytes > 500_000
    assert rows["tasks"].events == 0
    assert rows["tasks"].lags == {}
