"""Measures what each codec makes of experiences: bytes on wire and disk, and CPU time to write and read an event.

python benchmarks/compression.py [--rounds 5] [--archive FOLDER]

Batches of up to 256 KiB are built and read by kafka-python, as our producers and readers do. Token ids are drawn evenly
from a vocabulary of 152,000 (the worst case for a codec) and by Zipf's law, as in text. Texts are random words of our
documentation. `--archive` adds the experiences of a run. Codecs take turns in each round; the times are the best of all
rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from rft.config import Config
from rft.log.archive.view import ArchiveView
from schemas.codec import encode
from schemas.events import Experience

CODECS = {"none": 0, "snappy": 2, "lz4": 3, "zstd": 4, "gzip": 1}
"""Their numbers in Kafka's batches."""
VOCABULARY = 152_000
BATCH_BYTES = 256 * 1024
EVENTS_BYTES = 4 * 1024 * 1024
"""Size of the events of one measurement."""
WORDS = " ".join(path.read_text() for path in sorted(Path(__file__).parents[1].glob("docs/*.md"))).split()
"""The words of our documentation, as often as they occur there."""

Message = tuple[bytes, bytes]
Draw = Callable[[np.random.Generator, int], np.ndarray]


def even(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, VOCABULARY, count, np.int32)


def zipf(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return ids of which few are frequent: the nth has a share of about 1/n."""
    return (np.exp(rng.random(count) * np.log(VOCABULARY)) - 1).astype(np.int32)


def experience(number: int, tokens: int, draw: Draw, rng: np.random.Generator) -> Experience:
    """Return an experience whose first quarter is the prompt, with a text of four characters a token."""
    prompt = tokens // 4
    mask = np.r_[np.zeros(prompt, np.uint8), np.ones(tokens - prompt, np.uint8)]
    text = " ".join(rng.choice(WORDS, tokens))
    return Experience(
        f"train-{number:08d}/0", f"train-{number:08d}", number, 0, "train", 8, text[: 4 * prompt], text[4 * prompt :],
        "42", 1_700_000_000_000 + number, "explorer-0", "policy", draw(rng, tokens), mask,
        (mask * -rng.exponential(0.5, tokens)).astype(np.float32), np.where(mask == 1, 3, -1).astype(np.int32),
    )  # fmt: skip


def write(messages: Sequence[Message], codec: str) -> list[bytes]:
    """Return the batches of these messages."""
    batches, builder = [], None
    for key, value in messages:
        if builder is None or builder.append(0, key, value, []) is None:
            if builder is not None:
                builder.close()
                batches.append(builder.buffer())
            builder = MemoryRecordsBuilder(2, CODECS[codec], max(BATCH_BYTES, len(value) + 1024))
            assert builder.append(0, key, value, []) is not None
    assert builder is not None
    builder.close()
    return [bytes(batch) for batch in (*batches, builder.buffer())]


def read(batches: Sequence[bytes]) -> int:
    """Return the number of messages in these batches, after looking at each."""
    count = 0
    for data in batches:
        records = MemoryRecords(data)
        while records.has_next():
            count += sum(1 for _ in records.next_batch())
    return count


def measure(title: str, messages: Sequence[Message], rounds: int) -> None:
    sizes: dict[str, int] = {}
    writing, reading = dict.fromkeys(CODECS, float("inf")), dict.fromkeys(CODECS, float("inf"))
    for _ in range(rounds):
        for codec in CODECS:
            began = time.process_time()
            batches = write(messages, codec)
            written = time.process_time()
            assert read(batches) == len(messages)
            writing[codec] = min(writing[codec], written - began)
            reading[codec] = min(reading[codec], time.process_time() - written)
            sizes[codec] = sum(map(len, batches))
    for codec in CODECS:
        print(
            f"{title:22}{codec:8}{sizes[codec] / len(messages):10.0f} B  {sizes[codec] / sizes['none']:6.2f}"
            f"{writing[codec] / len(messages) * 1e6:12.0f} µs{reading[codec] / len(messages) * 1e6:12.0f} µs",
            flush=True,
        )


def archived(folder: str) -> list[Message]:
    """Return the experiences in an archive, in their order."""
    config = Config()
    with ArchiveView(config, folder) as view:
        return [(event.key or b"", event.value or b"") for event in view.read("experiences")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--archive", help="also the experiences of this run's archive")
    options = parser.parse_args()
    print(f"{'':22}{'codec':8}{'an event':>12}  {'ratio':>6}{'write':>15}{'read':>15}   (CPU time of an event)")
    for name, draw in (("even", even), ("zipf", zipf)):
        for tokens in options.tokens:
            rng = np.random.default_rng(0)
            count = max(EVENTS_BYTES // (17 * tokens), 8)
            made = [experience(number, tokens, draw, rng) for number in range(count)]
            events = [(one.group_id.encode(), encode(one)) for one in made]
            measure(f"{name}, {tokens} tokens", events, options.rounds)
    if options.archive:
        events = archived(options.archive)
        measure(f"{len(events)} archived", events, options.rounds)


if __name__ == "__main__":
    main()
