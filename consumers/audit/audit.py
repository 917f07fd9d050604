"""From a log to its audit."""

from __future__ import annotations

from collections.abc import Mapping

from consumers.audit.facts import Collector, Facts
from consumers.audit.publication import publication
from consumers.audit.report import AuditReport, Problem
from consumers.audit.training import models, training
from rft.config import Config
from rft.log.topics import topic_name
from rft.log.views import LogView

# Ends are taken in this order, downstream first: whatever an event names was written before it and so is read as well.
WAITING = "waiting"
_ORDER = ("steps", "ready", "dlq", "experiences")


def audit(config: Config, view: LogView, committed: Mapping[int, int] | None = None) -> AuditReport:
    """Read the log to its present end and account for every id.

    Args:
        committed: Next offset of ``experiences`` by partition that the processors have yet to resolve, read before
            this is called; None if it is not known, as for an archive.

    Raises:
        MissingRangeError, ArchiveError, BrokerError: The log cannot be read whole.
    """
    collector = Collector(topic_name(config, "experiences"))
    order: tuple[str, ...] = _ORDER
    if config.processor.external.required and WAITING in view.entities():
        # Before those that its groups are released to: each experience is found here, there, or in both.
        order = (WAITING, *_ORDER)
    ends = {entity: view.end_offsets(entity) for entity in order}
    for entity in order:
        collector.facts.begins[entity] = view.begin_offsets(entity)
        for event in view.read(entity, start=collector.facts.begins[entity], end=ends[entity]):
            collector.feed(event)
    collector.facts.committed = committed
    return account(collector.facts, config.trainer.model_key, view.name)


def account(facts: Facts, model: str, source: str) -> AuditReport:
    """The outcome (pure). ``model`` is the trainer to speak of when no step is recorded."""
    published, problems = publication(facts)
    report = AuditReport(source, published, [], problems, unreadable_ready=facts.unreadable_ready)
    report.problems += [
        Problem("unreadable", None, f"offset {offset} of steps cannot be decoded", "steps", partition, offset)
        for partition, offset in facts.unreadable_steps
    ]
    for name in models(facts, model):
        balance, problems, unchecked = training(facts, name)
        report.trained.append(balance)
        report.problems += problems
        report.unchecked += unchecked
    return report
