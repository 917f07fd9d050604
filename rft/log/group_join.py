"""Finishes the joins of a consumer group that kafka-python 3.0.12 forgets.

A member joins its group again when it learns of new partitions, as it does for the first time right after its start. If
``poll`` runs out of time in the middle, kafka-python takes the join for done: it never looks at the answer, has no
partitions and sends no heartbeats, for good. This file holds all that depends on its private parts for that.
"""

from __future__ import annotations

from kafka import KafkaConsumer


def finish_join(consumer: KafkaConsumer) -> None:
    """Let the next ``poll`` go on with a join that was begun. Call it before each ``poll`` of a subscribed consumer."""
    coordinator = consumer._coordinator
    if coordinator.rejoining:
        coordinator.request_rejoin()
