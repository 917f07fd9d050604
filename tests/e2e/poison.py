"""Makes malformed events for ``experiences``."""

from __future__ import annotations

import random

import numpy as np

from schemas.codec import encode
from schemas.events import Experience, Reward


def garbage(source: random.Random, count: int, huge: int = 0) -> list[tuple[bytes, bytes]]:
    """Return malformed events as (key, value).

    They are random, truncated, of another schema, with a NaN or with trailing bytes; ``huge`` of them have 8 MB.
    """
    experience = Experience(
        experience_id="g/0", group_id="g", number=-1, sample=0, split="train", group_size=1, prompt="a>",
        response="a", answer="a", created_at=0, source="garbage", model="policy",
        tokens=np.array([1, 2], dtype=np.int32), action_mask=np.array([0, 1], dtype=np.uint8),
        logprobs=np.array([0, -1.2345678], dtype=np.float32), versions=np.array([-1, 0], dtype=np.int32),
    )  # fmt: skip
    good = encode(experience)
    # Encoding rejects a NaN, so its four bytes are inserted afterwards.
    logprob = np.float32(-1.2345678).tobytes()
    assert good.count(logprob) == 1
    with_nan = good.replace(logprob, np.float32("nan").tobytes())
    reward = encode(Reward("g/0", "g", "someone", 1.0, 0))
    values: list[bytes] = []
    for i in range(count):
        match i % 5:
            case 0:
                values.append(source.randbytes(source.randint(0, 400)))
            case 1:
                values.append(good[: source.randint(0, len(good) - 1)])
            case 2:
                values.append(reward)
            case 3:
                values.append(with_nan)
            case 4:
                values.append(source.randbytes(8_000_000) if len(values) < 5 * huge else good + b"trailing")
    return [(f"garbage-{source.randrange(1 << 32)}-{i}".encode(), value) for i, value in enumerate(values)]
