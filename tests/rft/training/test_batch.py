"""Micro-batches hold every token of every sample once, whatever the cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rft.training.batch import action_counts, cut, micro_batches
from rft.training.sample import Payload


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 200))
def test_pieces_fit_or_hold_one_sequence(lengths, max_tokens):
    pieces = cut(lengths, max_tokens)
    assert sorted(index for piece in pieces for index in piece) == list(range(len(lengths)))
    for piece in pieces:
        assert len(piece) == 1 or len(piece) * max(lengths[i] for i in piece) <= max_tokens


@st.composite
def payloads(draw):
    length = draw(st.integers(2, 12))
    mask = np.array(draw(st.lists(st.integers(0, 1), min_size=length, max_size=length)), dtype=np.uint8)
    mask[-1] = 1
    tokens = np.array(draw(st.lists(st.integers(1, 9), min_size=length, max_size=length)), dtype=np.int32)
    logprobs = -np.arange(length, dtype=np.float32) - draw(st.integers(0, 1000)) * 100
    return Payload(tokens, mask, logprobs * mask, np.where(mask == 1, draw(st.integers(0, 5)), -1).astype(np.int32))


@given(st.lists(payloads(), min_size=1, max_size=12), st.integers(1, 80))
def test_each_written_token_is_predicted_once_from_the_tokens_before_it(samples, max_tokens):
    batches = micro_batches(
        samples,
        advantages=np.arange(len(samples), dtype=np.float64),
        weights=np.arange(len(samples), dtype=np.float64) / 8,
        temperatures=[0.0 if i % 2 else 0.5 for i in range(len(samples))],
        max_tokens=max_tokens,
    )
    expected = []
    for i, p in enumerate(samples):
        for t in range(1, len(p.tokens)):
            if p.action_mask[t]:
                divisor = 1.0 if i % 2 else 0.5
                expected.append((tuple(p.tokens[:t]), p.tokens[t], p.logprobs[t], i, i / 8, divisor, p.versions[t]))
    found = []
    for batch in batches:
        for n, pick in enumerate(batch.picks.tolist()):
            row, place = divmod(pick, len(batch.columns))
            column = int(batch.columns[place])
            values = (batch.targets, batch.behaviour, batch.advantages, batch.weights, batch.temperatures)
            numbers = [float(v[n]) for v in values]
            found.append((tuple(batch.inputs[row, : column + 1].tolist()), *numbers, int(batch.versions[n])))
    assert sorted(found) == sorted(expected)


@given(st.lists(payloads(), min_size=1, max_size=12))
def test_counts_are_of_the_tokens_learned_from(samples):
    batches = micro_batches(
        samples,
        advantages=np.zeros(len(samples)),
        weights=np.zeros(len(samples)),
        temperatures=[1.0] * len(samples),
        max_tokens=50,
    )
    assert action_counts(samples).sum() == sum(len(batch.targets) for batch in batches)
