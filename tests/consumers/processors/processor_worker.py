"""Starts processors as processes, and makes events for them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from kafka import TopicPartition

from rft.config import Config
from rft.log.clients import make_consumer
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.topics import topic_name
from rft.log.writer import EventWriter
from schemas.events import Experience

ENTRY = """
import sys
from pathlib import Path
from infra.roles import run_role
from rft.config import Config
sys.exit(run_role("processor", Config.model_validate_json(Path(sys.argv[1]).read_text())))
"""


def experience(number: int, sample: int, size: int = 4, **fields: Any) -> Experience:
    """Return a valid rollout; odd samples are right."""
    group_id = f"train-{number:08d}"
    mask = np.array([0, 0, 1, 1], dtype=np.uint8)
    values: dict[str, Any] = {
        "experience_id": f"{group_id}/{sample}",
        "group_id": group_id,
        "number": number,
        "sample": sample,
        "split": "train",
        "group_size": size,
        "prompt": "cat>",
        "response": "tac" if sample % 2 else "dog",
        "answer": "tac",
        "created_at": 1,
        "source": "test",
        "model": "tiny",
        "tokens": np.arange(4, dtype=np.int32),
        "action_mask": mask,
        "logprobs": np.where(mask == 1, -0.5, 0).astype(np.float32),
        "versions": np.where(mask == 1, 3, -1).astype(np.int32),
    }
    return Experience(**(values | fields))


def publish(config: Config, *numbers: int, size: int = 4) -> None:
    """Publish the groups of these numbers, one complete group after the other."""
    with EventWriter(config, "test") as writer:
        for number in numbers:
            for sample in range(size):
                writer.send("experiences", experience(number, sample, size=size))


class Worker:
    """Runs one processor."""

    def __init__(self, config: Config, folder: Path, name: str, entry: str = ENTRY) -> None:
        config_path = folder / f"{name}.json"
        config_path.write_text(json.dumps(config.model_dump(mode="json")))
        self.log_path = folder / f"{name}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", entry, str(config_path)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def partitions(self) -> list[int]:
        """Return the partitions of its latest assignment; empty before the first."""
        lines = [line for line in self.log.splitlines() if ": partitions [" in line]
        return [] if not lines else json.loads(lines[-1].rpartition("partitions ")[2])

    def wait_until_ready(self, timeout_s: float = 40) -> None:
        wait_for(lambda: self.partitions() or self.process.poll() is not None, timeout_s, lambda: self.log)
        assert self.process.poll() is None, self.log

    def stop(self, timeout_s: float = 30) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def wait_for(condition: Callable[[], object], timeout_s: float, explain: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s\n{explain()}"
        time.sleep(0.05)


def read_until(
    reader: EventReader, enough: Callable[[list[Event]], bool], timeout_s: float, explain: Callable[[], str]
) -> list[Event]:
    """Return all events until there are ``enough``, and those of the half second after."""
    events: list[Event] = []
    deadline = time.monotonic() + timeout_s
    while not enough(events):
        assert time.monotonic() < deadline, f"{len(events)} events within {timeout_s} s\n{explain()}"
        events += reader.poll(0.2)
    return events + reader.poll(0.5)


def committed(config: Config, entity: str = "experiences") -> int:
    """Return how many events the processors' group has committed, over all partitions of a topic without deletions."""
    topic = topic_name(config, entity)
    consumer = make_consumer(config, "test", f"{config.log.namespace}.processors")
    try:
        return sum(consumer.committed(TopicPartition(topic, n)) or 0 for n in range(config.log.partitions))
    finally:
        consumer.close()
