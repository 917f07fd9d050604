"""Measures what the archiver costs while events arrive: CPU, memory, and bytes on disk.

python benchmarks/archiver.py [--rate 1000] [--seconds 20] [--tokens 24] [--codec null]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from infra.broker import open_broker
from rft.config import Config
from rft.config_toml import masked, to_toml
from rft.log.archive import ArchiveStore
from rft.log.topics import ensure_topics, topic_name
from rft.log.writer import EventWriter
from schemas.events import Experience


def experience(number: int, tokens: int, rng: np.random.Generator) -> Experience:
    prompt = tokens // 4
    return Experience(
        f"train-{number // 8:08d}/{number % 8}", f"train-{number // 8:08d}", number // 8, number % 8, "train", 8,
        "hello>", "olleh", "olleh", 1_700_000_000_000, "explorer-0", "policy",
        tokens=rng.integers(0, 60, tokens, np.int32),
        action_mask=np.r_[np.zeros(prompt, np.uint8), np.ones(tokens - prompt, np.uint8)],
        logprobs=np.r_[np.zeros(prompt), -rng.random(tokens - prompt)].astype(np.float32),
        versions=np.r_[np.full(prompt, -1), np.full(tokens - prompt, number // 128)].astype(np.int32),
    )  # fmt: skip


def start(config: Config, folder: Path) -> psutil.Popen:
    path = folder / "config.toml"
    path.write_text(to_toml(masked(config)))
    command = [sys.executable, "-P", "-m", "infra.cli", "archiver", str(path)]
    return psutil.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)


def cpu(process: psutil.Popen) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rate", type=int, default=1000, help="events a second")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=24, help="tokens of each experience")
    parser.add_argument("--codec", default="null", choices=["null", "deflate"])
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="rft-archiver-") as name:
        folder = Path(name)
        broker = open_broker(Config(), folder)
        assert broker is not None
        sections = {
            "broker": {"kind": "external", "bootstrap_servers": broker.start()},
            "archive": {"url": str(folder / "archive"), "codec": options.codec, "roll_s": 5},
        }
        config = Config.model_validate(sections)
        try:
            ensure_topics(config)
            measure(config, folder, options, rng)
        finally:
            broker.stop()


def measure(config: Config, folder: Path, options: argparse.Namespace, rng: np.random.Generator) -> None:
    events = [experience(number, options.tokens, rng) for number in range(options.rate)]
    archiver = start(config, folder)
    time.sleep(5)
    before, began = cpu(archiver), time.perf_counter()
    time.sleep(5)
    idle = (cpu(archiver) - before) / (time.perf_counter() - began)
    before, began, sent = cpu(archiver), time.perf_counter(), 0
    with EventWriter(config, "benchmark") as writer:
        for _ in range(options.seconds):
            due = began + sent / options.rate + 1
            for event in events:
                writer.send("experiences", event)
            sent += len(events)
            time.sleep(max(0.0, due - time.perf_counter()))
    time.sleep(2)
    seconds, used = time.perf_counter() - began, cpu(archiver) - before
    memory = archiver.memory_info().rss / 2**20
    archiver.terminate()
    archiver.wait()
    store = ArchiveStore(config.archive_url)
    files = [file for part in store.files(topic_name(config, "experiences")).values() for file in part]
    size = sum((folder / "archive" / file.path).stat().st_size for file in files)
    archived = sum(file.end - file.first for file in files)
    print(f"{options.tokens} tokens, codec {options.codec}, {sent / seconds:,.0f} events/s for {seconds:.0f} s")
    print(f"  idle       {idle:7.1%} of a core")
    print(f"  archiving  {used / seconds:7.1%} of a core, {used / sent * 1e6:.0f} µs an event")
    print(f"  memory     {memory:7.0f} MiB")
    print(f"  archived   {archived:,} of {sent:,} events, {size / sent:,.0f} bytes each")


if __name__ == "__main__":
    main()
