"""Faust's Kafka transport, but for how long the broker may hold a fetch: Faust has 1,500 ms written into its code."""

from __future__ import annotations

from typing import Any

from faust.transport.drivers import aiokafka as driver


class PromptTransport(driver.Transport):
    """Fetches wait at most ``fetch_wait_ms`` for events."""

    def __init__(self, *args: Any, fetch_wait_ms: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fetch_wait_ms = fetch_wait_ms


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: PromptTransport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts; there is no public way to it.
        consumer._fetch_max_wait_ms = transport.fetch_wait_ms
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


PromptTransport.Consumer = _Consumer
