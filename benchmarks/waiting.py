"""Measures experiences that wait for external rewards: memory of each, time to restart, and whether all are joined.

python benchmarks/waiting.py [--experiences 100000] [--group 8] [--tokens 64] [--embedded]

Runs a real processor on Apache Kafka (KAFKA_HOME) or on the embedded broker. Its payload cache is limited to 1 MiB, so
the memory that grows while experiences wait is what they cost. The processor is killed with SIGKILL and started again.
Then rewards arrive in random order, one in 20 twice and one in 20 revised.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from kafka import TopicPartition

from infra.broker import open_broker
from producers.rewards import RewardProducer
from rft.config import Config
from rft.config_toml import masked, to_toml
from rft.log.clients import make_consumer
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics, topic_name
from rft.log.writer import EventWriter
from schemas.events import Experience


def experience(number: int, sample: int, size: int, tokens: int, rng: np.random.Generator) -> Experience:
    prompt = tokens // 4
    mask = np.r_[np.zeros(prompt, np.uint8), np.ones(tokens - prompt, np.uint8)]
    return Experience(
        f"train-{number:08d}/{sample}", f"train-{number:08d}", number, sample, "train", size, "hello>", "olleh",
        "olleh", 1_700_000_000_000, "explorer-0", "policy", rng.integers(0, 60, tokens, np.int32), mask,
        (mask * -rng.random(tokens)).astype(np.float32), np.where(mask == 1, 3, -1).astype(np.int32),
    )  # fmt: skip


class Processor:
    """A processor in a process of its own."""

    def __init__(self, config: Config, folder: Path) -> None:
        path = folder / "config.toml"
        path.write_text(to_toml(masked(config)))
        self.log = folder / "processor.log"
        with self.log.open("wb") as log:
            command = [sys.executable, "-P", "-m", "infra.cli", "processor", str(path)]
            self.process = psutil.Popen(command, stderr=log, env=os.environ)

    def wait(self, done: Callable[[], object], what: str, timeout_s: float = 900) -> float:
        began = time.monotonic()
        while not done():
            if self.process.poll() is not None or time.monotonic() - began > timeout_s:
                sys.exit(f"{what}: not reached\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)
        return time.monotonic() - began

    def ready(self) -> bool:
        return ": partitions [" in self.log.read_text()

    def memory(self) -> int:
        return int(self.process.memory_info().rss)


def committed(config: Config) -> int:
    consumer = make_consumer(config, "benchmark", f"{config.log.namespace}.processors")
    topic = topic_name(config, "experiences")
    total = sum(consumer.committed(TopicPartition(topic, n)) or 0 for n in range(config.log.partitions))
    consumer.close()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--experiences", type=int, default=100_000)
    parser.add_argument("--group", type=int, default=8, help="experiences of a group")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each experience")
    parser.add_argument("--embedded", action="store_true", help="on the embedded broker instead of Apache Kafka")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rft-waiting-") as name:
        folder = Path(name)
        kind = "embedded" if options.embedded else "kafka"
        broker = open_broker(Config.model_validate({"broker": {"kind": kind}}), folder)
        assert broker is not None
        sections = {
            "broker": {"kind": "external", "bootstrap_servers": broker.start()},
            "processor": {
                "external": {"required": ["human"]},
                "rewards": [],
                "buffer_mb": 1.0,
                "group_deadline_s": 1e6,
            },
        }
        try:
            measure(Config.model_validate(sections), folder, options)
        finally:
            broker.stop()


def measure(config: Config, folder: Path, options: argparse.Namespace) -> None:
    rng, dice = np.random.default_rng(0), random.Random(0)
    groups = options.experiences // options.group
    samples = [(number, sample) for number in range(groups) for sample in range(options.group)]
    ensure_topics(config)
    processor = Processor(config, folder)
    try:
        processor.wait(processor.ready, "start")
        # Memory that a processor needs as soon as it has read anything is not counted.
        warm = len(samples) // 5
        publish(config, samples[:warm], options, rng)
        processor.wait(lambda: committed(config) >= warm, "warm up")
        before = processor.memory()
        publish(config, samples[warm:], options, rng)
        waited = processor.wait(lambda: committed(config) >= len(samples), "reading")
        time.sleep(3)
        grown = processor.memory() - before
        print(f"{len(samples):,} experiences of {options.tokens} tokens in groups of {options.group} wait")
        print(f"  memory     {grown / (len(samples) - warm):7.0f} B each (payload cache of 1 MiB included)")
        print(f"  read in    {waited:7.0f} s, all positions committed")
        processor.process.kill()
        processor.process.wait()
        processor = Processor(config, folder)
        print(f"  restarted  {processor.wait(processor.ready, 'restart'):7.1f} s after SIGKILL")
        print("            ", next(line for line in processor.log.read_text().splitlines() if "restored" in line))
        join(config, processor, samples, dice)
    finally:
        processor.process.kill()
        processor.process.wait()


def publish(
    config: Config, samples: list[tuple[int, int]], options: argparse.Namespace, rng: np.random.Generator
) -> None:
    with EventWriter(config, "benchmark") as writer:
        for number, sample in samples:
            writer.send("experiences", experience(number, sample, options.group, options.tokens, rng))


def join(config: Config, processor: Processor, samples: list[tuple[int, int]], dice: random.Random) -> None:
    sends = [(sample, 0) for sample in samples]
    sends += [(sample, 0) for sample in dice.sample(samples, len(samples) // 20)]
    sends += [(sample, 1) for sample in dice.sample(samples, len(samples) // 20)]
    dice.shuffle(sends)
    found: set[str] = set()
    twice, began = 0, time.monotonic()
    with EventReader(config, "benchmark", ["ready"]) as reader:
        with RewardProducer(config) as rewards:
            for (number, sample), revision in sends:
                rewards.send(
                    f"train-{number:08d}/{sample}", number + sample / 8 + revision, source="human", revision=revision
                )

        def collect() -> bool:
            nonlocal twice
            while events := reader.poll(0.2, 5000):
                for event in events:
                    record = event.record()
                    twice += record.experience.experience_id in found
                    found.add(record.experience.experience_id)
                    right = record.experience.number + record.experience.sample / 8
                    assert record.verdict == "train", record.cause
                    assert record.reward in (right, right + 1), (record.reward, right)
            return len(found) == len(samples)

        processor.wait(collect, "joining")
    seconds = time.monotonic() - began
    print(f"  joined     {len(found):,} of {len(samples):,} in {seconds:.0f} s, {twice} twice")


if __name__ == "__main__":
    main()
