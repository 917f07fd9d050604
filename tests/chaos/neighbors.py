"""Writes to the topics of a run as other people do: in transactions that they abort, with any codec, and junk."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from poison import garbage

from chaos.deployment import Deployment, Message
from chaos.plan import Fault
from chaos.watch import Origin
from rft.log.topics import ENTITIES, topic_name
from schemas.codec import encode
from schemas.events import Experience, Member, Reward

CODECS = ("gzip", "snappy", "lz4", "zstd")
TRANSACTIONS = 3
KEYS = {"steps": b"policy", "weights": b"policy"}
"""Keys of the run's own events in topics of one key."""
STRANGER = b"\xff\x00 stranger"


def inject(fault: Fault, here: Deployment) -> set[Origin]:
    """Write, and return the events that must become dead letters."""
    chance = random.Random(fault.seed)
    match fault.kind:
        case "aborted transactions":
            return _abort(fault, here, chance)
        case "foreign codecs":
            return _use_codecs(here, chance)
        case "junk on every topic":
            return {sent for entity in ENTITIES for sent in here.send_junk(entity, list(_junk(entity, chance)))}
        case kind:
            raise ValueError(kind)


def _abort(fault: Fault, here: Deployment, chance: random.Random) -> set[Origin]:
    """Abort transactions with experiences that no task asked for, rewards, and junk on all topics.

    Transactions that are committed come in between, and the last one stays open for a while: no one may read past it.
    """
    producer = KafkaProducer(
        bootstrap_servers=here.node.direct_servers.split(","), transactional_id=f"stranger-{uuid.uuid4().hex}"
    )
    must: set[Origin] = set()
    try:
        producer.init_transactions()
        for number in range(TRANSACTIONS):
            producer.begin_transaction()
            must |= here.send_junk("experiences", garbage(chance, 5), producer)
            producer.commit_transaction()
            producer.begin_transaction()
            for entity, messages in _uncommitted(here, chance):
                for key, value in messages:
                    producer.send(topic_name(here.config, entity), key=key, value=value)
            producer.flush(60)
            if number == TRANSACTIONS - 1:
                time.sleep(fault.lasts_s)
            producer.abort_transaction()
    finally:
        producer.close(timeout=10)
    return must


def _uncommitted(here: Deployment, chance: random.Random) -> Iterator[tuple[str, list[Message]]]:
    """Return events whose effect would be seen: dead letters, experiences without a task, and changed copies."""
    for entity in ENTITIES:
        yield entity, [(key, value) for key, value in _junk(entity, chance) if value is not None]
    group = f"train-{chance.randrange(50_000_000, 99_000_000):08d}"
    changed = [event.record(Experience) for event in here.watch.experiences()[:3]]
    copies = [(one.group_id.encode(), encode(_changed(one, one.experience_id, one.group_id))) for one in changed]
    forged = [(group.encode(), encode(_changed(one, f"{group}/0", group))) for one in changed[:1]]
    rewards = [
        (one.group_id.encode(), encode(Reward(one.experience_id, one.group_id, "no one", 1e6, 0))) for one in changed
    ]
    yield "experiences", [*copies, *forged]
    yield "rewards", rewards


def _changed(experience: Experience, name: str, group: str) -> Experience:
    return replace(experience, experience_id=name, group_id=group, response=experience.response + "!")


def _use_codecs(here: Deployment, chance: random.Random) -> set[Origin]:
    """Publish malformed events and copies of good ones in batches of each codec, and change the codec of the topics.

    A batch that cannot be read would hide its events, so all of them must become dead letters.
    """
    must: set[Origin] = set()
    for codec in CODECS:
        producer = KafkaProducer(
            bootstrap_servers=here.node.direct_servers.split(","), compression_type=codec, linger_ms=50
        )
        try:
            must |= here.send_junk("experiences", garbage(chance, 10), producer)
            must |= here.send_junk("rewards", list(_junk("rewards", chance)), producer)
            for event in here.watch.experiences()[-3:]:
                producer.send(topic_name(here.config, "experiences"), key=event.key, value=event.value)
            producer.flush(60)
        finally:
            producer.close(timeout=10)
    for entity in ENTITIES:
        codec = chance.choice(CODECS)
        resource = ConfigResource(
            ConfigResourceType.TOPIC, topic_name(here.config, entity), configs={"compression.type": codec}
        )
        here.node.cluster.ask(_altering(resource))
    return must


def _altering(resource: ConfigResource) -> Callable[[object], object]:
    return lambda admin: admin.alter_configs([resource], incremental=True)  # type: ignore[attr-defined]


def _junk(entity: str, chance: random.Random) -> Sequence[Message]:
    """Return bytes of no schema, a record of another topic, and a tombstone where it deletes nothing."""
    other = (
        Member("m", "explorer", "e", "here", 0, "", "a", 0, {})
        if entity != "members"
        else Reward("g/0", "g", "someone", 1.0, 0)
    )
    values: list[bytes | None] = [chance.randbytes(chance.randint(1, 400)), encode(other)[:9], encode(other)]
    if not ENTITIES[entity].cleanup.startswith("compact"):
        values.append(None)
    return [(KEYS.get(entity, STRANGER) if n % 2 else STRANGER, value) for n, value in enumerate(values)]
