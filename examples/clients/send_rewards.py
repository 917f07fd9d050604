"""Send rewards for experiences. Uses kafka-python and fastavro, and no code of Stream-RFT.

    python send_rewards.py SERVERS TOPIC SCHEMA SOURCE < rewards.jsonl

SCHEMA is schemas/avsc/Reward.avsc. SOURCE is a name in processor.external.required or .optional. A line of input is
{"experience_id": "train-00000012/3", "value": 0.75}, and may have a "revision" above 0 to correct an earlier reward.
"""

import io
import json
import sys
import time

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form
from kafka import KafkaProducer

servers, topic, path, source = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    schema = json.load(file)
frame = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
parsed = fastavro.parse_schema(schema)
# kafka-python chooses the partition by murmur2 of the key, as Java does. On librdkafka set partitioner=murmur2_random.
producer = KafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True, compression_type="gzip")
sent = []
for line in sys.stdin:
    given = json.loads(line)
    group_id = given["experience_id"].partition("/")[0]
    reward = {
        "experience_id": given["experience_id"],
        "group_id": group_id,
        "source": source,
        "value": float(given["value"]),
        "created_at": int(time.time() * 1000),
        "revision": given.get("revision", 0),
        "metadata": json.dumps(given.get("metadata", {})),
    }
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed, reward)
    sent.append(producer.send(topic, key=group_id.encode(), value=frame + body.getvalue()))
producer.flush()
for one in sent:
    one.get()  # raises the error of a reward that the broker did not take
print(f"{len(sent)} rewards are on {topic}")
