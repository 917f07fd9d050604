"""Workers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processor_worker import Worker

from rft.config import Config


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[[Config], Worker]]:
    started: list[Worker] = []

    def start(config: Config, *, ready: bool = True) -> Worker:
        worker = Worker(config, tmp_path, f"worker-{len(started)}")
        started.append(worker)
        if ready:
            worker.wait_until_ready()
        return worker

    yield start
    for worker in started:
        worker.kill()
