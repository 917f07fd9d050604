"""Publishes experiences as a producer does whose clock is hours ahead or days behind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from chaos.deployment import Deployment
from chaos.plan import SESSION_S, NoEffectError
from rft.log.topics import topic_name
from schemas.codec import encode
from schemas.events import Experience, Task

HOUR_MS = 3_600_000
SKEWS_MS = {"ahead of": 2 * HOUR_MS, "behind": -8 * 24 * HOUR_MS}
"""How far the clocks are off, by the word that the processors use for it."""
PAUSE_S = SESSION_S / 2
"""The explorers stand still for this time at most: they stay members of their consumer group."""
GROUPS = 3


def skew(here: Deployment) -> None:
    """Publish the first samples of issued tasks with wrong timestamps, before an explorer does.

    The explorers publish the same samples and the others of those groups later. If a deadline followed such a
    timestamp, their groups would be released without the others. ``message.timestamp.after.max.ms`` is raised before,
    because Kafka refuses a timestamp that is an hour ahead.
    """
    _accept_any_time(here)
    explorers = [process for _, process in here.processes("explorer")]
    producer = KafkaProducer(bootstrap_servers=here.node.direct_servers.split(","))
    try:
        for explorer in explorers:
            explorer.suspend()
        tasks = _open_tasks(here)
        for one, skew_ms in _experiences(tasks, here.watch.experiences()[-1].record(Experience)):
            now_ms = int(time.time() * 1000)
            producer.send(
                topic_name(here.config, "experiences"),
                key=one.group_id.encode(),
                value=encode(replace(one, created_at=now_ms + skew_ms)),
                timestamp_ms=now_ms + skew_ms,
            ).get(20)
    finally:
        for explorer in explorers:
            explorer.resume()
        producer.close(timeout=10)


def are_named(here: Deployment) -> bool:
    """Return whether the processors' logs name clocks that are ahead, and clocks that are behind."""
    logs = [path.read_text(errors="replace") for path in (here.config.run.path / "logs").glob("processor*.log")]
    return all(any(f"s {word} the time of its arrival" in log for log in logs) for word in SKEWS_MS)


def _open_tasks(here: Deployment) -> Sequence[Task]:
    """Return tasks of which no sample is published. The explorers stand still meanwhile."""
    deadline = time.monotonic() + PAUSE_S
    while True:
        tasks = [event.record(Task) for event in here.watch.open_tasks()]
        if found := [task for task in tasks if task.split == "train"][-GROUPS:]:
            return found
        if time.monotonic() > deadline:
            raise NoEffectError("no task was open while the explorers stood still")
        time.sleep(0.05)


def _experiences(tasks: Sequence[Task], model: Experience) -> Iterator[tuple[Experience, int]]:
    for number, task in enumerate(tasks):
        skews_ms = list(SKEWS_MS.values())
        if number % 2 == 0:
            skews_ms.reverse()  # a group's first sample sets its deadline
        for sample, skew_ms in enumerate(skews_ms):
            own = {"experience_id": f"{task.group_id}/{sample}", "group_id": task.group_id, "number": task.number}
            asked = {"prompt": task.prompt, "answer": task.answer, "group_size": task.samples, "split": task.split}
            yield replace(model, **own, **asked, sample=sample, source="stranger"), skew_ms


def _accept_any_time(here: Deployment) -> None:
    resource = ConfigResource(
        ConfigResourceType.TOPIC,
        topic_name(here.config, "experiences"),
        configs={"message.timestamp.after.max.ms": str(2**63 - 1)},
    )
    here.node.cluster.ask(lambda admin: admin.alter_configs([resource], incremental=True))
