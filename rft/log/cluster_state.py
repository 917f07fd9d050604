"""Tells whether the cluster serves our topics now, so that a role that cannot go on knows where the fault is."""

from __future__ import annotations

from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_admin
from rft.log.outages import asking_once
from rft.log.topics import ENTITIES, topic_name


def cluster_fault(config: Config) -> str | None:
    """Return why the cluster does not take or give events of our topics now; None if it does.

    Does not wait longer than ``broker.connect_timeout_s`` and a request.
    """
    with asking_once():
        try:
            admin = make_admin(config, "cluster-state")
            try:
                described = admin.describe_topics([topic_name(config, entity) for entity in ENTITIES])
            finally:
                admin.close()
        except (BrokerError, KafkaError) as error:
            return f"the broker does not answer: {error}"
    in_sync = config.log.copies_needed
    for topic in described:
        for partition in topic["partitions"]:
            where = f"{topic['name']}, partition {partition['partition_index']}"
            if partition["leader_id"] < 0:
                return f"{where} has no leader"
            copies = len(partition["isr_nodes"])
            if copies < min(in_sync, len(partition["replica_nodes"])):
                return f"{where} has {copies} of at least {in_sync} copies in sync, so it takes no events"
    return None
