"""Builds the log of a small finished run, for tests to tamper with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from consumers.audit.audit import account
from consumers.audit.facts import Collector
from consumers.audit.report import AuditReport
from rft.config import Config
from rft.log.dead_letters import dead_letter_headers
from rft.log.events import Event
from rft.log.topics import topic_name
from rft.stream.release import release_id
from schemas.codec import encode
from schemas.events import EventRef, Experience, Record, ScoredExperience, TrainingStep

CONFIG = Config()
SAMPLES = 4
PARTITIONS = 2


@dataclass
class Run:
    """Holds lists of events by topic. An event keeps its offset, whatever is removed later."""

    events: dict[str, list[Event]] = field(
        default_factory=lambda: {"experiences": [], "ready": [], "dlq": [], "steps": []}
    )

    def write(self, entity: str, partition: int, value: bytes, headers: Iterable[tuple[str, bytes | None]] = ()) -> int:
        offset = 1 + max((e.offset for e in self.events[entity] if e.partition == partition), default=-1)
        self.events[entity].append(Event(entity, partition, offset, 1000 + offset, b"k", value, tuple(headers)))
        return offset

    def publish(self, number: int, sample: int, **changes: Any) -> tuple[Experience, int, int]:
        """Write an experience. Return it and its position."""
        group = f"train-{number:08d}"
        experience = Experience(
            f"{group}/{sample}", group, number, sample, "train", SAMPLES, "p", "r", "a", 1, "e", "m"
        )
        experience = replace(experience, **changes)
        partition = number % PARTITIONS
        return experience, partition, self.write("experiences", partition, encode(experience))

    def release(
        self, members: list[tuple[Experience, int, int]], causes: dict[str, str] | None = None
    ) -> list[tuple[int, int, str]]:
        """Write a released group. Return the (partition, offset, id) of its samples in ``ready``."""
        identity = release_id(experience.experience_id for experience, _, _ in members)
        positions = []
        for experience, partition, offset in members:
            cause = (causes or {}).get(experience.experience_id)
            scored = ScoredExperience(
                experience, partition, offset, "filtered" if cause else "train", cause, 0.5, {}, 0.0, identity,
                len(members), 2,
            )  # fmt: skip
            positions.append((partition, self.write("ready", partition, encode(scored)), experience.experience_id))
        return positions

    def dead_letter(self, partition: int, offset: int, error: Exception, claimed: str | None = None) -> None:
        headers = dead_letter_headers(
            [("ce_id", claimed.encode())] if claimed else [],
            stage="decode", error=error, topic=topic_name(CONFIG, "experiences"), partition=partition, offset=offset,
            now_ms=1,
        )  # fmt: skip
        self.write("dlq", 0, b"\x00", headers)

    def step(
        self,
        number: int,
        trained: list[tuple[int, int, str]],
        dropped: list[tuple[int, int, str, str]] = (),  # type: ignore[assignment]
        kind: str = "step",
        digest: str = "d",
        model: str = "policy",
    ) -> None:
        refs = tuple(EventRef(p, o, name, task_number(name), 0) for p, o, name in trained)
        gone = tuple(EventRef(p, o, name, task_number(name), 0, cause) for p, o, name, cause in dropped)
        self.write("steps", 0, encode(TrainingStep(model, kind, number, 0, 1, refs, gone, (), digest, {}, 3)))

    def remove(self, entity: str, partition: int, offset: int) -> None:
        self.events[entity] = [e for e in self.events[entity] if (e.partition, e.offset) != (partition, offset)]

    def replace(self, entity: str, partition: int, offset: int, record: Record) -> None:
        self.events[entity] = [
            replace(e, value=encode(record)) if (e.partition, e.offset) == (partition, offset) else e
            for e in self.events[entity]
        ]

    def audit(
        self, begins: dict[str, dict[int, int]] | None = None, committed: dict[int, int] | None = None
    ) -> AuditReport:
        collector = Collector(topic_name(CONFIG, "experiences"))
        collector.facts.begins = begins or {}
        collector.facts.committed = committed
        for entity, events in self.events.items():
            for event in events:
                if event.offset >= collector.facts.begins.get(entity, {}).get(event.partition, 0):
                    collector.feed(event)
        return account(collector.facts, "policy", "test")


def task_number(experience_id: str) -> int:
    return int(experience_id.split("/")[0].rsplit("-", 1)[1])


def honest_run(steps: int = 3, groups_per_step: int = 2) -> Run:
    """Make a run that trains groups 0, 1, … in order, two a step, and uses every sample."""
    run = Run()
    for step in range(steps):
        trained = []
        for number in range(step * groups_per_step, (step + 1) * groups_per_step):
            trained += run.release([run.publish(number, sample) for sample in range(SAMPLES)])
        run.step(step + 1, trained)
    return run


def named(report: AuditReport) -> list[tuple[str, str | None]]:
    """Return the (kind, id) of each problem."""
    return [(problem.kind, problem.experience_id) for problem in report.problems]
