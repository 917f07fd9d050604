"""Print the experiences of a run as JSON lines. Uses kafka-python and fastavro, and no code of Stream-RFT.

    python read_experiences.py SERVERS TOPIC SCHEMAS

SCHEMAS is the folder schemas/avsc/history: every version of every record.
"""

import io
import json
import struct
import sys
import zlib
from pathlib import Path

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form
from kafka import KafkaConsumer, TopicPartition

servers, topic, folder = sys.argv[1:]
schemas = {}
for path in sorted(Path(folder).glob("Experience.v*.avsc"), key=lambda path: int(path.stem.partition(".v")[2])):
    schema = json.loads(path.read_text(encoding="utf-8"))
    name = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    schemas[name] = fastavro.parse_schema(schema)
newest = schemas[name]


def decode(value, headers):
    """Return the record in a value with Avro single-object encoding: C3 01, fingerprint, body."""
    if value is None or value[:2] != b"\xc3\x01":
        raise ValueError("no single-object encoding")
    written = schemas.get(value[2:10])
    if written is None:  # a later release wrote it, and sends its schema along
        written = fastavro.parse_schema(json.loads(zlib.decompress(headers["rft.schema"])))
        schemas[value[2:10]] = written
    return fastavro.schemaless_reader(io.BytesIO(value[10:]), written, newest)


def unpack(data, code):
    """Return packed little-endian numbers: code "i" is int32, "f" is float32, "B" is uint8."""
    return list(struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data))


def unpack_versions(data):
    """Return the weight version of each token from pairs of version and count."""
    numbers = unpack(data, "i")
    return [version for version, count in zip(numbers[::2], numbers[1::2], strict=True) for _ in range(count)]


consumer = KafkaConsumer(
    bootstrap_servers=servers,
    isolation_level="read_committed",  # what a transaction aborts was never there
    auto_offset_reset="earliest",
    enable_auto_commit=False,
)
partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
consumer.assign(partitions)
consumer.seek_to_beginning()
ends = consumer.end_offsets(partitions)
seen = set()
# Compare positions, not the offsets of events: a partition may end in a transaction's marker.
while any(consumer.position(partition) < ends[partition] for partition in partitions):
    for messages in consumer.poll(timeout_ms=500).values():
        for message in messages:
            try:
                one = decode(message.value, dict(message.headers))
            except Exception as error:  # anyone may write here; the processor makes this one a dead letter
                print(f"partition {message.partition}, offset {message.offset}: {error}", file=sys.stderr)
                continue
            if one["experience_id"] in seen:  # a rollout that is repeated has the same id
                continue
            seen.add(one["experience_id"])
            one["tokens"] = unpack(one["tokens"], "i")
            one["action_mask"] = unpack(one["action_mask"], "B")
            one["logprobs"] = unpack(one["logprobs"], "f")
            one["versions"] = unpack_versions(one["versions"])
            # NaN where a turn has no reward; older versions do not have the field.
            one["turn_rewards"] = [None if r != r else r for r in unpack(one["turn_rewards"] or b"", "f")]
            print(json.dumps(one), flush=True)
consumer.close()
