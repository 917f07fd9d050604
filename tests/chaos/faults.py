"""Injects each kind of fault, and decides when the pipeline has recovered from it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import psutil
from poison import garbage

from chaos import clocks, cluster_faults, neighbors
from chaos.deployment import Deployment
from chaos.plan import CLUSTER, NEIGHBORS, Fault, NoEffectError
from rft.log.topics import topic_name

Recovered = Callable[[], bool]
LEAST_POISON, MOST_POISON = 5, 200
DISK_STALLED_S = 4.0
"""A disk counts as full for the trainer when no weights were announced for this time."""
DISK_FULL_S = 40.0


def inject(fault: Fault, here: Deployment) -> Recovered:
    """Inject the fault and wait for its end. Return a function that says whether the pipeline has recovered."""
    if fault.kind in CLUSTER:
        cluster_faults.inject(fault, here)
        return _all_topics_move(here)
    if fault.kind == "skewed clocks":
        since = _now_ms()
        clocks.skew(here)
        return lambda: clocks.are_named(here) and here.watch.wrote("ready", since) and here.watch.wrote("steps", since)
    if fault.kind in NEIGHBORS:
        since = _now_ms()
        sent = neighbors.inject(fault, here)
        return lambda: sent <= here.watch.dead_letters() and here.watch.wrote("steps", since)
    match fault.kind.split():
        case ["kill", "-9", "broker"]:
            return _kill_broker(fault, here)
        case ["kill", "-9", role]:
            return _kill(fault, here, role)
        case ["SIGSTOP", role]:
            return _stop(fault, here, role)
        case ["1", "%", "poison"]:
            return _poison(fault, here)
        case ["full", "disk"]:
            return _fill_disk(here)
        case ["network", mode]:
            return _network(fault, here, mode)
    raise ValueError(fault.kind)


def change_topic(fault: Fault, here: Deployment) -> str:
    """Do what ends a run (:data:`chaos.plan.ENDINGS`), and return the topic's name."""
    topic = topic_name(here.config, random.Random(fault.seed).choice(("tasks", "experiences", "ready")))
    if fault.kind == "partitions added":
        here.node.cluster.add_partitions(topic, 2 * here.config.log.partitions)
    else:
        here.node.cluster.recreate_topic(topic)
    return topic


def _kill(fault: Fault, here: Deployment, role: str) -> Recovered:
    name, old = _pick(fault, here, role)
    old.kill()

    def recovered() -> bool:
        new = here.process(name)
        return new is not None and new.pid != old.pid and _works(here, role, new, _created_ms(new))

    return recovered


def _stop(fault: Fault, here: Deployment, role: str) -> Recovered:
    name, process = _pick(fault, here, role)
    process.suspend()
    time.sleep(fault.lasts_s)
    process.resume()
    since = _now_ms()

    def recovered() -> bool:
        now = here.process(name)  # another process if the stopped one had to end
        return now is not None and _works(here, role, now, since)

    return recovered


def _kill_broker(fault: Fault, here: Deployment) -> Recovered:
    cluster = here.node.cluster
    number = cluster.numbers[fault.index % len(cluster.numbers)]
    cluster.kill(number)
    time.sleep(fault.lasts_s)
    here.node.start()
    return _all_topics_move(here)


def _network(fault: Fault, here: Deployment, mode: str) -> Recovered:
    """Hurt the connections of the clients to all nodes."""
    chance = random.Random(fault.seed)
    delay_s, share = chance.uniform(0.1, 0.6), chance.uniform(0.3, 1.0)
    hit = 0
    for proxy in here.node.proxies:
        match mode:
            case "cut":
                hit += proxy.cut()
            case "delay":
                hit += proxy.connections
                proxy.delay(delay_s, fault.seed)
            case _:
                hit += proxy.drop(share, fault.seed)
    time.sleep(fault.lasts_s)
    here.node.restore()
    if not hit:
        raise NoEffectError("there was no connection to hit")
    return _all_topics_move(here)


def _poison(fault: Fault, here: Deployment) -> Recovered:
    since = _now_ms()
    due = here.watch.count("experiences") // 100 - len(here.junk)
    events = garbage(random.Random(fault.seed), min(max(due, LEAST_POISON), MOST_POISON))
    sent = here.send_junk("experiences", events)
    return lambda: sent <= here.watch.dead_letters() and here.watch.wrote("steps", since)


def _fill_disk(here: Deployment) -> Recovered:
    """Keep the disk full until the trainer makes no progress."""
    _, trainer = next(here.processes("trainer"))
    began = time.monotonic()
    stalled_since = _now_ms()
    while _now_ms() - stalled_since < DISK_STALLED_S * 1000:
        here.disk.fill(trainer)
        time.sleep(0.05)
        if here.watch.wrote("weights", stalled_since):
            stalled_since = _now_ms()
        if time.monotonic() - began > DISK_FULL_S:
            here.disk.free(trainer)
            raise NoEffectError(f"weights were written for {DISK_FULL_S:g} s on a full disk ({here.disk.how})")
    here.disk.free(trainer)
    since = _now_ms()
    return lambda: here.watch.wrote("weights", since) and here.watch.wrote("steps", since)


def _pick(fault: Fault, here: Deployment, role: str) -> tuple[str, psutil.Process]:
    found = sorted(here.processes(role), key=lambda pair: pair[0])
    return found[fault.index % len(found)]


def _works(here: Deployment, role: str, process: psutil.Process, since_ms: int) -> bool:
    """Return whether this very process has written events since then, and a step was taken."""
    entity, by = {
        "conductor": ("tasks", "conductor$"),
        "explorer": ("experiences", f"-{process.pid}$"),
        "processor": ("ready", f":{process.pid}$"),
        "trainer": ("steps", f"/{process.pid}/"),
    }[role]
    return here.watch.wrote(entity, since_ms, by) and here.watch.wrote("steps", since_ms)


def _all_topics_move(here: Deployment) -> Recovered:
    """Return whether tasks, experiences, groups, steps and weights were all written since now."""
    since = _now_ms()
    entities = ("tasks", "experiences", "ready", "steps", "weights")
    return lambda: all(here.watch.wrote(entity, since) for entity in entities)


def _created_ms(process: psutil.Process) -> int:
    return int(process.create_time() * 1000)


def _now_ms() -> int:
    return int(time.time() * 1000)
