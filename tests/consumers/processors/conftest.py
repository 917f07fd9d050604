"""Fixtures that start workers and end them with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import ConfigMaker
from processor_worker import ENTRY, Worker

from rft.config import Config
from rft.log.topics import ensure_topics


@pytest.fixture
def one_partition(kafka_broker: str, make_config: ConfigMaker) -> Config:
    """Return a configuration on Apache Kafka whose topics have one partition each."""
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    return config


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[[Config], Worker]]:
    started: list[Worker] = []

    def start(config: Config, *, ready: bool = True, before: str = "") -> Worker:
        """Start a worker. ``before`` is Python code that the process runs before the role."""
        worker = Worker(config, tmp_path, f"worker-{len(started)}", before + ENTRY)
        started.append(worker)
        if ready:
            worker.wait_until_ready()
        return worker

    yield start
    for worker in started:
        worker.kill()
