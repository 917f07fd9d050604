"""Rewards from outside: the typed producer, and the documented bytes."""

from __future__ import annotations

import io
import re
from pathlib import Path

import avro.io
import avro.schema
import pytest

import schemas
from producers.rewards import RewardProducer, group_of
from rft.config import Config
from rft.errors import BrokerError, EncodeError, RewardError
from rft.log.reader import EventReader
from schemas.codec import decode
from schemas.events import Reward

DOCS = Path(__file__).parents[2] / "docs" / "rewards.md"


def read(config: Config, count: int) -> list:
    events = []
    with EventReader(config, "test", ["rewards"]) as reader:
        while len(events) < count:
            events += reader.poll(1.0)
    return events


def test_when_the_context_ends_rewards_are_on_the_log_keyed_by_their_group(any_config):
    with RewardProducer(any_config.broker.bootstrap_servers, namespace=any_config.log.namespace) as rewards:
        rewards.send("train-00000012/3", 0.75, source="human", revision=2, metadata={"by": "me"})
        rewards.send("g/1/2", 1, source="tests")
    events = {event.key: event.record(Reward) for event in read(any_config, 2)}
    first = events[b"train-00000012"]
    assert (first.experience_id, first.value, first.source, first.revision) == ("train-00000012/3", 0.75, "human", 2)
    assert first.metadata == '{"by": "me"}'
    assert events[b"g"].experience_id == "g/1/2"


def test_an_invalid_reward_is_refused_before_it_is_sent(log_config):
    with RewardProducer(log_config) as rewards:
        for wrong in ("", "train-1", "/0", "g/"):
            with pytest.raises(RewardError, match="experience_id"):
                rewards.send(wrong, 1.0, source="human")
        with pytest.raises(EncodeError, match="value"):
            rewards.send("g/0", float("nan"), source="human")
        with pytest.raises(RewardError, match="source"):
            rewards.send("g/0", 1.0, source="")
        with pytest.raises(RewardError, match="JSON"):
            rewards.send("g/0", 1.0, source="human", metadata={"x": object()})
        with pytest.raises(RewardError, match="not of group"):
            rewards.send("g/0", 1.0, source="human", group_id="h")


def test_an_unreachable_broker_is_named():
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1"):
        RewardProducer("127.0.0.1:1")


def test_an_experience_id_holds_its_group():
    assert group_of("train-1/3/0") == "train-1"


def test_the_documented_bytes_are_what_the_avro_package_and_we_write():
    example = DOCS.read_text().split("```")[5]
    lines = [line for line in example.splitlines() if line]
    data = bytes.fromhex(" ".join(re.match(r"(?:[0-9a-f]{2} ?)+", line).group() for line in lines))
    reward = Reward("train-00000012/3", "train-00000012", "human", 0.75, 1_700_000_000_000)
    assert decode(data) == reward
    schema = avro.schema.parse((Path(schemas.__file__).parent / "avsc" / "Reward.avsc").read_text())
    out = io.BytesIO()
    fields = {name: getattr(reward, name) for name in Reward.__dataclass_fields__}
    avro.io.DatumWriter(schema).write(fields, avro.io.BinaryEncoder(out))
    assert data == b"\xc3\x01" + schema.fingerprint("CRC-64-AVRO") + out.getvalue()
    assert len(data) == 66
