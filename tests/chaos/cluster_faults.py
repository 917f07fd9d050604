"""Injects what happens to a cluster of three nodes: deaths, elections, restarts, a follower that lags.

Each function returns when the cluster has all its nodes again, and all replicas are in sync.
"""

from __future__ import annotations

import contextlib
import random
import time

from kafka import KafkaProducer

from chaos.deployment import Deployment
from chaos.plan import ALL_DOWN_S, TWO_DOWN_S, Fault, NoEffectError
from rft.log.topics import topic_name

LAG_S = 40.0
"""How long the cluster may take to notice that a node lags or is dead."""


def inject(fault: Fault, here: Deployment) -> None:
    """Inject the fault and wait for its end."""
    cluster = here.node.cluster
    chance = random.Random(fault.seed)
    match fault.kind:
        case "kill -9 leader":
            entity = chance.choice(("tasks", "experiences", "ready", "steps", "weights"))
            _kill(fault, here, cluster.leader_of(topic_name(here.config, entity), 0))
        case "kill -9 controller":
            _kill(fault, here, cluster.controller())
        case "preferred election":
            _elect_preferred(here)
        case "unclean election":
            _elect_unclean(here)
        case "rolling restart":
            _restart_all(here)
        case "lagging follower":
            _pause(here, chance)
        case kind if kind in TWO_DOWN_S:
            _kill(fault, here, *chance.sample(cluster.numbers, 2))
        case kind if kind in ALL_DOWN_S:
            _kill(fault, here, *cluster.numbers)
        case kind:
            raise ValueError(kind)
    here.node.ensure_whole()


def _kill(fault: Fault, here: Deployment, *numbers: int) -> None:
    for number in numbers:
        here.node.cluster.kill(number)
    time.sleep(fault.lasts_s)
    here.node.start()


def _elect_preferred(here: Deployment) -> None:
    """Move the leadership of every partition, those of the consumer groups' offsets included."""
    cluster = here.node.cluster
    before = _leaders(here)
    cluster.change_preferred()
    cluster.elect_preferred()
    if _leaders(here) == before:
        raise NoEffectError("no partition has another leader")


def _restart_all(here: Deployment) -> None:
    """Restart one node after the other, as an upgrade does."""
    for number in here.node.cluster.numbers:
        here.node.cluster.terminate(number)
        here.node.ensure_whole()


def _pause(here: Deployment, chance: random.Random) -> None:
    """Suspend a node until it has left the replicas in sync of what it follows. What it leads moves."""
    cluster = here.node.cluster
    topic = topic_name(here.config, "steps")
    follower = chance.choice([n for n in cluster.numbers if n != cluster.leader_of(topic, 0)])
    with cluster.paused(follower):
        cluster.wait_until(lambda: follower not in cluster.in_sync_replicas(topic, 0), LAG_S, "a replica that lags")


def _elect_unclean(here: Deployment) -> None:
    """Leave partitions without any replica in sync, and have the operator elect another one.

    Nothing that was acknowledged is lost by it. First no node can replicate from the leader any more. It leaves the
    others no longer in sync, and with fewer than ``min.insync.replicas`` it acknowledges nothing from then on; so what
    was acknowledged is on all. Both others are killed and started: the cluster takes neither for safe then. At last the
    leader dies.
    """
    cluster = here.node.cluster
    topic = topic_name(here.config, "steps")
    leader = cluster.leader_of(topic, 0)
    here.node.stop_replication(leader)
    _append_unacknowledged(here, topic)
    cluster.wait_until(lambda: cluster.in_sync_replicas(topic, 0) == [leader], LAG_S, "a leader alone in sync")
    for number in cluster.numbers:
        if number != leader:
            cluster.kill(number)
    here.node.start()
    cluster.kill(leader)
    cluster.wait_until(lambda: cluster.leader_of(topic, 0) != leader, LAG_S, "a dead leader that is deposed")
    if cluster.leader_of(topic, 0) >= 0:
        raise NoEffectError("another replica was safe to elect")
    cluster.elect_unclean()
    cluster.wait_until(lambda: cluster.leader_of(topic, 0) >= 0, LAG_S, "a leader that was not in sync")


def _append_unacknowledged(here: Deployment, topic: str) -> None:
    """Append an event that no replica has, so that the others lag: without one they count as in sync.

    The run may have stopped writing there. The event is never visible, and it is gone after the election.
    """
    servers = here.node.direct_servers.split(",")
    with contextlib.closing(KafkaProducer(bootstrap_servers=servers, acks=1, enable_idempotence=False)) as producer:
        producer.send(topic, b"unacknowledged", partition=0).get(20)


def _leaders(here: Deployment) -> dict[tuple[str, int], int]:
    topics = here.node.cluster.ask(lambda admin: admin.describe_topics())
    return {
        (topic["name"], one["partition_index"]): one["leader_id"] for topic in topics for one in topic["partitions"]
    }
