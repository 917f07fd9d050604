"""Starts one pipeline for the faults, finds its processes by name, and ends it cleanly."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from kafka import KafkaProducer
from pipeline import RFT, Pipeline, settings

from chaos.disk import SmallDisk
from chaos.node import ProxiedCluster
from chaos.plan import SESSION_S, Scenario
from chaos.progress import Progress
from chaos.watch import COMMITTED, Origin, Watch
from rft.config import Config
from rft.errors import DecodeError
from rft.log.reader import EventReader
from rft.log.topics import topic_name
from schemas.events import TrainingStep

Message = tuple[bytes, bytes | None]
"""Key and value of an event."""
NO_LETTER = ("dlq", "members", "rewards", "waiting", "turns", "sessions")
"""Topics on which junk may, but need not become a dead letter: no role of these deployments reads them all the time."""
LAST_STEPS = 3
"""Steps that a pipeline still takes after the last fault, to end regularly."""
ENDLESS = 1_000_000
GROUP_DEADLINE_S = 900
"""Longer than a run without progress lasts (STUCK_S): no recovery may depend on a group's deadline."""
SHORT_DEADLINE_S = 100
"""Shorter than the long outages: none of them may let a group's deadline pass."""


class Deployment:
    """A conductor, explorers, processors and a trainer on a proxied broker, their folder on a small disk."""

    def __init__(self, folder: Path, model: Path, node: ProxiedCluster, scenario: Scenario) -> None:
        folder.mkdir(parents=True)
        self.node = node
        self.folder = folder
        self.disk = SmallDisk(folder / "runs")
        self._settings: dict[str, Any] = settings(
            folder,
            model,
            node.servers,
            log={
                "session_timeout_ms": int(SESSION_S * 1000),
                "namespace": f"chaos-{os.getpid()}-{scenario.number}",
                "replication_factor": node.copies,
            },
            trainer={
                "steps": ENDLESS,
                "groups_per_step": 4,
                "learning_rate": 1e-4,
                "checkpoint_interval": 10,
                "max_staleness": scenario.max_staleness,
                "sync_interval": scenario.sync_interval,
                "max_barren_groups": 0,
            },
            eval={"tasks": 10},
            processor={"group_deadline_s": group_deadline_s(scenario)},
            launcher={
                "explorers": scenario.explorers,
                "processors": scenario.processors,
                # Many restarts in a short time are expected here.
                "restart_limit": 1000,
                "restart_window_s": 10,
            },
        )
        self.run = Pipeline(folder, self._settings)
        direct = self.config.broker.model_copy(update={"bootstrap_servers": node.direct_servers})
        self.direct_config: Config = self.config.model_copy(update={"broker": direct})
        self.watch = Watch(self.direct_config)
        self.progress = Progress(self.direct_config)
        self.junk: dict[Origin, Message] = {}
        """Malformed events that were sent."""

    @property
    def config(self) -> Config:
        return self.run.config

    def start(self, timeout_s: float) -> None:
        """Start the pipeline, and return when it trains."""
        self.run.start()
        deadline = time.monotonic() + timeout_s
        self.run.wait_until(lambda: bool(self.run.role("trainer")), timeout_s, "trainer")
        self.watch.start()
        self.progress.start()
        self.run.wait_until(lambda: self.watch.step > 0, max(1, deadline - time.monotonic()), "first step")

    def processes(self, role: str) -> Iterator[tuple[str, psutil.Process]]:
        """Yield name (``explorer-1``) and process of each live process of one role."""
        for process in self.run.role(role):
            try:
                yield process.environ()["RFT_ROLE_NAME"], process
            except (psutil.Error, KeyError):  # has not yet executed its own program, or has ended already
                continue

    def process(self, name: str) -> psutil.Process | None:
        """Return the live process of that name."""
        return next((process for other, process in self.processes(name.partition("-")[0]) if other == name), None)

    def pids(self) -> dict[str, int]:
        """Return the process of each role by its name."""
        roles = ("conductor", "explorer", "processor", "trainer")
        return {name: process.pid for role in roles for name, process in self.processes(role)}

    def send_junk(self, entity: str, events: Sequence[Message], producer: KafkaProducer | None = None) -> set[Origin]:
        """Publish malformed events, note them, and return those that must become dead letters."""
        topic = topic_name(self.config, entity)
        own = producer or KafkaProducer(bootstrap_servers=self.node.direct_servers.split(","))
        noted: dict[Origin, Message] = {}
        try:
            sent = [(event, own.send(topic, key=event[0], value=event[1])) for event in events]
            own.flush(60)
            for event, future in sent:
                at = future.get(60)
                noted[Origin(entity, at.partition, at.offset)] = event
        finally:
            if producer is None:
                own.close()
        self.junk |= noted
        return set() if entity in NO_LETTER else set(noted)

    def finish(self, timeout_s: float) -> int:
        """Stop the run, resume it for its last steps to a regular end, and return the number of all steps."""
        self.run.stop()
        self.watch.stop()
        self.progress.stop()
        steps = self._steps_taken() + LAST_STEPS
        again = self.folder / "finish"
        again.mkdir()
        self.run = Pipeline(again, self._settings | {"trainer": self._settings["trainer"] | {"steps": steps}})
        self.run.start()
        assert self.run.wait(timeout_s) == 0, self.run.tail()
        return steps

    def audit(self) -> subprocess.CompletedProcess[str]:
        """Run ``rft audit --json``."""
        command = [RFT, "audit", str(self.run.path), "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)

    def close(self) -> None:
        """End everything that still runs."""
        self.run.stop()
        self.watch.stop()
        self.progress.stop()
        self.disk.close()

    def _steps_taken(self) -> int:
        newest = 0
        with EventReader(self.direct_config, "chaos-steps", ["steps"], **COMMITTED) as reader:
            ends = reader.end_offsets()
            while not reader.caught_up(ends):
                for event in reader.poll(0.5):
                    with contextlib.suppress(DecodeError):  # junk
                        newest = max(newest, event.record(TrainingStep).step)
        return newest


def group_deadline_s(scenario: Scenario) -> float:
    """Return a deadline after which a group would be released without its late experiences, which looks like a loss."""
    return SHORT_DEADLINE_S if scenario.longest_s > SHORT_DEADLINE_S else GROUP_DEADLINE_S
