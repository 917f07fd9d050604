"""Measures reader and processor with `read_committed` and a codec, beside `read_uncommitted` and none.

python benchmarks/data_plane.py [--events 4000] [--tokens 1024] [--rounds 5] [--codecs zstd lz4]      (needs KAFKA_HOME)

The reader is `EventReader`, the processor a real one in a process of its own, the broker an Apache Kafka node. Each
measurement has new topics, filled before. Variants take turns, in the reverse order in every second round, so that
other load of the machine meets all of them. Printed are medians of all rounds; CPU time is that of the reading process
alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from compression import experience, zipf
from waiting import committed

from infra.broker import open_broker
from rft.config import Config
from rft.config_toml import masked, to_toml
from rft.log.reader import EventReader
from rft.log.topic_table import topic_table
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter

PROCESSOR = """
import sys
from pathlib import Path
import consumers.processors.faust_backend.private as private
import rft.log.clients as clients
from infra.roles import run_role
from rft.config_sources import load_config
private.ISOLATION_LEVEL = clients.ISOLATION_LEVEL = sys.argv[2]
sys.exit(run_role("processor", load_config(Path(sys.argv[1]))))
"""
GROUP = 8


class Variant(NamedTuple):
    """How events are written and read."""

    isolation: str
    codec: str


class Speed(NamedTuple):
    """The result of one measurement."""

    events_per_s: float
    cpu_us: float
    """CPU time of one event."""


def fill(config: Config, options: argparse.Namespace) -> None:
    """Publish groups of experiences, and wait until all are on the log."""
    ensure_topics(config)
    rng = np.random.default_rng(0)
    with EventWriter(config, "benchmark") as writer:
        for index in range(options.events):
            one = experience(index // GROUP, options.tokens, zipf, rng)
            sample = index % GROUP
            writer.send("experiences", replace(one, sample=sample, experience_id=f"{one.group_id}/{sample}"))


def read(config: Config, isolation: str, events: int) -> Speed:
    with EventReader(config, "benchmark", ["experiences"], isolation_level=isolation) as reader:
        began, cpu = time.monotonic(), time.process_time()
        found = 0
        while found < events:
            found += len(reader.poll(0.2, 1000))
        return Speed(events / (time.monotonic() - began), (time.process_time() - cpu) / events * 1e6)


def process(config: Config, isolation: str, events: int, folder: Path) -> Speed:
    path, log = folder / "config.toml", folder / f"{config.log.namespace}.log"
    path.write_text(to_toml(masked(config)))
    with log.open("wb") as output:
        process = psutil.Popen([sys.executable, "-c", PROCESSOR, path, isolation], stderr=output, env=os.environ)
    try:
        while ": partitions [" not in log.read_text():
            if process.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.02)
        began, cpu = time.monotonic(), sum(process.cpu_times()[:2])
        while committed(config) < events:
            time.sleep(0.1)
        return Speed(events / (time.monotonic() - began), (sum(process.cpu_times()[:2]) - cpu) / events * 1e6)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            process.kill()


def show(speeds: Mapping[tuple[str, Variant], list[Speed]], sizes: Mapping[Variant, float], before: Variant) -> None:
    """Print medians, and medians of the ratios to ``before`` in the same round."""
    print(f"{'':10}{'isolation':18}{'codec':8}{'on disk':>10}{'events/s':>10}{'ratio':>7}{'CPU':>10}{'ratio':>7}")
    for (what, variant), found in sorted(speeds.items(), key=lambda item: item[0][0]):
        base = speeds[what, before]
        rate, cpu = (statistics.median(one[index] for one in found) for index in (0, 1))
        rates = statistics.median(one.events_per_s / two.events_per_s for one, two in zip(found, base, strict=True))
        cpus = statistics.median(one.cpu_us / two.cpu_us for one, two in zip(found, base, strict=True))
        print(
            f"{what:10}{variant.isolation:18}{variant.codec:8}{sizes[variant]:8.0f} B{rate:10.0f}{rates:7.2f}"
            f"{cpu:7.0f} µs{cpus:7.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of each experience")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codecs", nargs="+", default=["zstd", "lz4"])
    options = parser.parse_args()
    before = Variant("read_uncommitted", "none")
    variants = [before, Variant("read_committed", "none"), *(Variant("read_committed", one) for one in options.codecs)]
    speeds: dict[tuple[str, Variant], list[Speed]] = defaultdict(list)
    sizes: dict[Variant, float] = {}
    with tempfile.TemporaryDirectory(prefix="rft-data-plane-") as name:
        folder = Path(name)
        broker = open_broker(Config.model_validate({"broker": {"kind": "kafka"}}), folder)
        assert broker is not None
        servers = broker.start()
        try:
            for number in range(options.rounds):
                for variant in reversed(variants) if number % 2 else variants:
                    sections = {
                        "broker": {"kind": "external", "bootstrap_servers": servers},
                        "log": {"namespace": f"{'-'.join(variant)}-{number}", "compression": variant.codec},
                    }
                    config = Config.model_validate(sections)
                    fill(config, options)
                    speeds["reader", variant].append(read(config, variant.isolation, options.events))
                    speeds["processor", variant].append(process(config, variant.isolation, options.events, folder))
                    rows = {row.entity: row for row in topic_table(config)}
                    sizes[variant] = (rows["experiences"].size_bytes or 0) / options.events
                print(f"after round {number + 1}; load {os.getloadavg()[0]:.1f}")
                show(speeds, sizes, before)
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
