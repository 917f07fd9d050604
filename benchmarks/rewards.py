"""Measures what the process boundary of reward functions costs: events a second of one processor's decisions.

Each event is decoded, validated, scored, grouped and encoded, as a processor does it, but without a broker: a Faust
worker adds about 250 µs of its own to each event. The function is a user's own and does next to nothing, so the
difference is the boundary. ``--tokens`` sets the length of prompt and response in tokens.

    python benchmarks/rewards.py --events 20000
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from rft.config import ProcessorConfig
from rft.rewards.isolation import open_scorer
from rft.stream.actions import Publish, Received
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import make_prioritizer
from rft.stream.rules import Rules
from schemas.codec import encode
from schemas.events import Experience

SAMPLES = 8


def half_right(response: str, answer: str | None, *, metadata: dict[str, object]) -> float:
    return 0.5 if metadata and response != answer else 1.0


def events(number: int, tokens: int) -> list[Received]:
    made = []
    mask = np.repeat(np.array([0, 1], np.uint8), [tokens // 4, tokens - tokens // 4])
    for index in range(number):
        group = f"train-{index // SAMPLES:08d}"
        experience = Experience(
            experience_id=f"{group}/{index % SAMPLES}",
            group_id=group,
            number=index // SAMPLES,
            sample=index % SAMPLES,
            split="train",
            group_size=SAMPLES,
            prompt="word " * (tokens // 4),
            response="word " * (tokens - tokens // 4),
            answer="word",
            created_at=0,
            source="benchmark",
            model="policy",
            tokens=np.arange(tokens, dtype=np.int32),
            action_mask=mask,
            logprobs=-mask.astype(np.float32),
            versions=np.where(mask == 1, 0, -1).astype(np.int32),
            finish_reason="stop",
            metadata='{"difficulty": {"level": 3}, "source_dataset": "words"}',
        )
        made.append(Received(0, index, group.encode(), encode(experience)))
    return made


def measure(given: list[Received], function: str, isolation: str) -> float:
    """Return events a second."""
    config = ProcessorConfig.model_validate({"rewards": [{"function": function}], "reward_isolation": isolation})
    pipeline = Pipeline(Rules(config, open_scorer(config), make_prioritizer("fifo"), 2**22))
    began = time.perf_counter()
    for event in given:
        for action in pipeline.receive(event, 0):
            assert isinstance(action, Publish), action
            for sample in action.samples:
                encode(sample)
    return len(given) / (time.perf_counter() - began)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--tokens", type=int, default=512)
    given = arguments.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    made = events(given.events, given.tokens)
    print(f"{given.events} events of {len(made[0].value or b'')} bytes")
    for function, isolation in (
        ("exact_match", "process"),
        ("rewards:half_right", "none"),
        ("rewards:half_right", "process"),
    ):
        rate = measure(made, function, isolation)
        print(f"{function:20} reward_isolation = {isolation:8} {rate:7.0f} events/s, {1e6 / rate:5.0f} µs each")


if __name__ == "__main__":
    main()
