"""Reads a log and audits it."""

from __future__ import annotations

from consumers.audit.facts import Collector, Facts
from consumers.audit.publication import account_published
from consumers.audit.report import AuditReport, Problem
from consumers.audit.training import account_trained, models
from rft.config import Config
from rft.log.coordinates import EntityPartition, Offsets
from rft.log.offset_queries import committed_offsets
from rft.log.topics import consumer_group, topic_name
from rft.log.views import LogView

WAITING = "waiting"
_ORDER = ("steps", "ready", "dlq", "experiences")
"""Ends are taken in this order, downstream first: what an event names was written before it, so it is read as well."""


def audit(config: Config, view: LogView, committed: Offsets | None = None) -> AuditReport:
    """Read the log to its present end and account for every id.

    Args:
        committed: Next offset of ``experiences`` that the processors have yet to resolve, read before this is called
            (:func:`committed_by_processors`); None if it is not known, as for an archive.

    Raises:
        MissingRangeError, ArchiveError, BrokerError: The log cannot be read whole.
    """
    collector = Collector(topic_name(config, "experiences"), topic_name(config, "steps"))
    order: tuple[str, ...] = _ORDER
    if config.processor.external.required and WAITING in view.entities():
        # Before the topics that its groups are released to: each experience is found here, there, or in both.
        order = (WAITING, *_ORDER)
    ends = {entity: view.end_offsets(entity) for entity in order}
    for entity in order:
        begins = view.begin_offsets(entity)
        collector.facts.begins[entity] = begins
        for event in view.read(entity, start=begins, end=ends[entity]):
            collector.feed(event)
    collector.facts.committed = committed
    return account(collector.facts, config.trainer.model_key, view.name)


def account(facts: Facts, model: str, source: str) -> AuditReport:
    """Return the outcome (pure). ``model`` names the trainer if no step is recorded."""
    published, problems = account_published(facts)
    tampered = [position for position in facts.unreadable_steps if position not in facts.dead_lettered_steps]
    report = AuditReport(
        source,
        published,
        [],
        problems,
        unreadable_ready=facts.unreadable_ready,
        set_aside_steps=len(facts.unreadable_steps) - len(tampered),
    )
    report.problems += [
        Problem("unreadable", None, f"offset {offset} of steps cannot be decoded", "steps", partition, offset)
        for partition, offset in tampered
    ]
    for name in models(facts, model):
        balance, problems, unchecked = account_trained(facts, name)
        report.trained.append(balance)
        report.problems += problems
        report.unchecked += unchecked
    return report


def committed_by_processors(config: Config, view: LogView) -> dict[int, int]:
    """Return how far the processors say that they have resolved ``experiences``. Raises BrokerError.

    Partitions of which they have committed nothing are left out.
    """
    partitions = [EntityPartition("experiences", number) for number in view.begin_offsets("experiences")]
    committed = committed_offsets(config, "audit", consumer_group(config, "processors"), partitions)
    return {at.partition: offset for at, offset in committed.items()}
