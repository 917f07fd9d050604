"""Measures the CPU time to encode and decode a 1,024-token experience, by the typed codec and by fastavro alone."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import fastavro
import numpy as np

from schemas.codec import decode, encode
from schemas.events import Experience
from schemas.load import current
from schemas.wire import to_wire

TOKENS = 1024
ROUNDS, CALLS = 15, 500


def experience() -> Experience:
    versions = np.full(TOKENS, -1, np.int32)
    versions[TOKENS // 2 :] = 3
    versions[-100:] = 4
    return Experience(
        experience_id="train-00000012/0",
        group_id="train-00000012",
        number=12,
        sample=0,
        split="train",
        group_size=8,
        prompt="p" * TOKENS,
        response="r" * TOKENS,
        answer="42",
        created_at=1_700_000_000_000,
        source="explorer-0",
        model="policy",
        tokens=np.arange(TOKENS, dtype=np.int32),
        action_mask=(versions >= 0).astype(np.uint8),
        logprobs=np.where(versions >= 0, -1.5, 0).astype(np.float32),
        versions=versions,
    )


def microseconds(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            call()
        best = min(best, time.process_time() - started)
    return best / CALLS * 1e6


def main() -> None:
    record, schema = experience(), current("Experience").parsed
    wire, data = to_wire(record), encode(record)

    def bare_write() -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, wire)
        return buffer.getvalue()

    body = bare_write()
    print(f"{TOKENS} tokens, {len(data)} bytes; µs of CPU time, best of {ROUNDS} rounds")
    print(f"{'':16}{'encode':>10}{'decode':>10}")
    bare_read = microseconds(lambda: fastavro.schemaless_reader(io.BytesIO(body), schema, None))
    print(f"{'fastavro alone':16}{microseconds(bare_write):10.1f}{bare_read:10.1f}")
    typed_read = microseconds(lambda: decode(data, Experience))
    print(f"{'typed, checked':16}{microseconds(lambda: encode(record)):10.1f}{typed_read:10.1f}")


if __name__ == "__main__":
    main()
