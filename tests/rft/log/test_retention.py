"""A reader that retention overtakes raises an error, and can continue after the deleted events."""

from __future__ import annotations

import pytest
from deleting import delete_before

from rft.errors import MissingRangeError
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter

pytestmark = pytest.mark.kafka


def test_a_reader_that_retention_overtakes_stops_at_the_gap_and_can_continue_after_it(kafka_broker, make_config):
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    with EventReader(config, "reader", ["tasks"]) as reader, EventWriter(config, "writer") as writer:
        assert reader.poll(0.1) == []
        reader.pause("tasks")
        for _ in range(10):  # a fetch that was under way must not bring what is written next
            assert reader.poll(0.1) == []
        for n in range(10):
            writer.send_bytes("tasks", str(n).encode(), key=b"k")
        writer.flush()
        delete_before(config, "tasks", 7)
        reader.resume("tasks")

        def read_on():
            for _ in range(50):
                assert reader.poll(0.1) == []

        with pytest.raises(MissingRangeError, match=r"tasks, partition 0: offsets 0 to 6 are missing") as caught:
            read_on()
        reader.seek("tasks", caught.value.partition, caught.value.end)
        values = []
        while not reader.caught_up(reader.end_offsets()):
            values += [event.value for event in reader.poll(0.2)]
    assert values == [b"7", b"8", b"9"]
