"""A fetch that comes back in the middle of a rebalance is thrown away by Faust: what it held must be fetched again."""

from __future__ import annotations

import pytest
from processor_worker import committed, experience, read_until, wait_for

from rft.log.events import EventReader, EventWriter

pytestmark = pytest.mark.timeout(120)

THROWN_AWAY = """
import asyncio
from consumers.processors import transport

class Consumer(transport.PromptTransport.Consumer):
    thrown_away = False

    async def _getmany(self, *args, **options):
        records = await super()._getmany(*args, **options)
        if records and not self.thrown_away:
            self.thrown_away = True
            self.stop_flow()
            asyncio.get_running_loop().call_later(0.5, self.resume_flow)
        return records

transport.PromptTransport.Consumer = Consumer
"""


def publish(config, *numbers: int) -> None:
    with EventWriter(config, "test") as writer:
        for number in numbers:
            for sample in range(4):
                writer.send("experiences", experience(number, sample))


def test_what_a_rebalance_threw_away_is_fetched_again(any_config, start_worker):
    publish(any_config, *range(20))
    worker = start_worker(any_config, before=THROWN_AWAY)
    with EventReader(any_config, "test", ["ready"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 80, 20, lambda: worker.log)
    assert len(events) == 80
    wait_for(lambda: committed(any_config) == 80, 20, lambda: worker.log)
