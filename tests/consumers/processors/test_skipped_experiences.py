"""Faust throws away a fetch that returns during a rebalance: its events must be fetched again."""

from __future__ import annotations

import re
import time

import pytest
from processor_worker import committed, experience, publish, read_until, wait_for

from rft.config import Config
from rft.log.clients import make_producer
from rft.log.reader import EventReader
from rft.log.topics import topic_name
from schemas.codec import encode

pytestmark = pytest.mark.timeout(120)

THROWN_AWAY = """
import asyncio
from consumers.processors.faust_backend import private

class Consumer(private.PromptTransport.Consumer):
    thrown_away = False

    async def _getmany(self, *args, **options):
        records = await super()._getmany(*args, **options)
        if records and not self.thrown_away:
            self.thrown_away = True
            self.stop_flow()
            asyncio.get_running_loop().call_later(0.5, self.resume_flow)
        return records

private.PromptTransport.Consumer = Consumer
"""
"""Throws away what the first fetch brings, as a rebalance does; reading goes on half a second later."""

WATCHED_CLOSELY = """
from consumers.processors import missed_events, role
missed_events.STALL_S = 2.0
role.SUMMARY_S = 0.5
"""

NO_SEEK = """
async def perform_seek(self):
    pass

Consumer.perform_seek = perform_seek
"""
"""Makes the seek to committed offsets fail silently: Faust only warns of that."""


def ready_groups(config: Config, worker, count: int) -> list[int]:
    """Return the numbers of the groups on ``ready``, once there are ``count``."""
    with EventReader(config, "test", ["ready"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= count * 4, 30, lambda: worker.log)
    assert len(events) == count * 4
    return sorted({event.record().experience.number for event in events})


def test_events_that_a_rebalance_threw_away_are_fetched_again(any_config, start_worker):
    publish(any_config, *range(20))
    worker = start_worker(any_config, before=THROWN_AWAY)
    assert ready_groups(any_config, worker, 20) == list(range(20))
    wait_for(lambda: committed(any_config) == 80, 20, lambda: worker.log)


@pytest.mark.kafka
def test_an_event_that_does_not_come_ends_the_worker_and_the_next_one_takes_it(one_partition, start_worker):
    publish(one_partition, *range(5))
    worker = start_worker(one_partition, before=THROWN_AWAY + NO_SEEK + WATCHED_CLOSELY)
    assert worker.process.wait(40) == 1, worker.log
    assert re.search(r"experiences, partition 0: offset 0 has been on the log for \d s and does not come", worker.log)
    assert committed(one_partition) == 0
    worker = start_worker(one_partition)
    assert ready_groups(one_partition, worker, 5) == list(range(5))


@pytest.mark.kafka
def test_a_skipped_event_ends_the_worker_before_a_later_one_is_committed(one_partition, start_worker):
    publish(one_partition, *range(5))
    worker = start_worker(one_partition, before=THROWN_AWAY + NO_SEEK)
    publish(one_partition, *range(5, 10))
    assert worker.process.wait(40) == 1, worker.log
    assert re.search(r"partition 0: offset \d+ came first, although 0 is before it\. Nothing .* committed", worker.log)
    assert committed(one_partition) == 0
    worker = start_worker(one_partition)
    wait_for(lambda: committed(one_partition) == 40, 20, lambda: worker.log)


@pytest.mark.kafka
def test_a_transaction_marker_is_not_a_missed_event(one_partition, start_worker):
    producer = make_producer(one_partition, "transactional", transactional_id="markers")
    producer.init_transactions()
    for number in range(3):
        producer.begin_transaction()
        for sample in range(4):
            one = experience(number, sample)
            producer.send(topic_name(one_partition, "experiences"), encode(one), key=one.group_id.encode())
        producer.commit_transaction()
    producer.close()
    worker = start_worker(one_partition, before=WATCHED_CLOSELY)
    assert ready_groups(one_partition, worker, 3) == [0, 1, 2]
    # Four events and their marker, three times; the last marker is never read.
    wait_for(lambda: committed(one_partition) == 14, 20, lambda: worker.log)
    time.sleep(5)  # several times what an event may take
    publish(one_partition, 3)
    wait_for(lambda: committed(one_partition) == 19, 20, lambda: worker.log)
    assert worker.process.poll() is None, worker.log
