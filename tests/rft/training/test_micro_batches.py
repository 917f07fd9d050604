"""Micro-batches hold every action token of every sample once, however they are split."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rft.training.batch import StepBatch
from rft.training.micro_batches import make_micro_batches, split_by_tokens, split_over_ranks
from rft.training.sample import Payload


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 200))
def test_micro_batches_fit_the_limit_or_hold_one_sequence(lengths, max_tokens):
    split = split_by_tokens(lengths, max_tokens)
    assert sorted(index for indices in split for index in indices) == list(range(len(lengths)))
    for indices in split:
        assert len(indices) == 1 or len(indices) * max(lengths[i] for i in indices) <= max_tokens


@st.composite
def payloads(draw):
    length = draw(st.integers(2, 12))
    mask = np.array(draw(st.lists(st.integers(0, 1), min_size=length, max_size=length)), dtype=np.uint8)
    mask[-1] = 1
    tokens = np.array(draw(st.lists(st.integers(1, 9), min_size=length, max_size=length)), dtype=np.int32)
    logprobs = -np.arange(length, dtype=np.float32) - draw(st.integers(0, 1000)) * 100
    return Payload(tokens, mask, logprobs * mask, np.where(mask == 1, draw(st.integers(0, 5)), -1).astype(np.int32))


def step_batch(payloads):
    size = len(payloads)
    ones = np.ones(size)
    return StepBatch(payloads, ones, np.arange(size), ("rollout",) * size, ones, ones, ones > 1)


@given(st.data(), st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 200))
def test_units_stay_in_one_micro_batch_and_other_indices_are_left_out(data, lengths, max_tokens):
    order = data.draw(st.permutations(range(len(lengths))))
    units = [list(order[i : i + 2]) for i in range(0, data.draw(st.integers(0, len(lengths))), 2)]
    split = split_by_tokens(lengths, max_tokens, units)
    assert sorted(i for indices in split for i in indices) == sorted(i for unit in units for i in unit)
    for unit in units:
        assert sum(set(unit) <= set(indices) for indices in split) == 1
    for indices in split:
        assert indices in units or len(indices) * max(lengths[i] for i in indices) <= max_tokens


@given(st.lists(payloads(), min_size=1, max_size=12), st.integers(1, 80))
def test_each_action_token_is_predicted_once_from_the_tokens_before_it(samples, max_tokens):
    expected = []
    for i, p in enumerate(samples):
        for t in range(1, len(p.tokens)):
            if p.action_mask[t]:
                number = len(expected)
                expected.append((number, tuple(p.tokens[:t]), p.tokens[t], p.logprobs[t], p.versions[t], i))
    found = []
    for batch in make_micro_batches(step_batch(samples), max_tokens):
        for n, logit_index in enumerate(batch.logit_indices.tolist()):
            row, k = divmod(logit_index, len(batch.columns))
            column = int(batch.columns[k])
            assert int(batch.sequences[n]) == row
            numbers = [float(v[n]) for v in (batch.targets, batch.sampler_logprobs, batch.versions)]
            inputs = tuple(batch.inputs[row, : column + 1].tolist())
            found.append((int(batch.token_indices[n]), inputs, *numbers, int(batch.batch_indices[row])))
    assert sorted(found) == expected


@given(st.lists(payloads(), min_size=1, max_size=12), st.integers(1, 80))
def test_a_packed_row_holds_its_sequences_whole_and_each_action_token_once(samples, max_tokens):
    expected = [
        (p.tokens[t], p.logprobs[t], p.versions[t], i, tuple(p.tokens[:t]))
        for i, p in enumerate(samples)
        for t in range(1, len(p.tokens))
        if p.action_mask[t]
    ]
    found = {}
    for micro_batch in make_micro_batches(step_batch(samples), max_tokens, packed=True):
        assert micro_batch.packed_lengths == tuple(
            len(samples[i].tokens) - 1 for i in micro_batch.batch_indices.tolist()
        )
        assert len(micro_batch.packed_lengths) == 1 or sum(micro_batch.packed_lengths) <= max_tokens
        ends = np.cumsum(micro_batch.packed_lengths)
        for n, column in enumerate(micro_batch.columns.tolist()):
            sequence = int(np.searchsorted(ends, column, side="right"))
            assert sequence == int(micro_batch.sequences[n])
            begin = int(ends[sequence]) - micro_batch.packed_lengths[sequence]
            numbers = [
                float(values[n]) for values in (micro_batch.targets, micro_batch.sampler_logprobs, micro_batch.versions)
            ]
            before = tuple(micro_batch.inputs[0, begin : column + 1].tolist())
            assert int(micro_batch.token_indices[n]) not in found
            found[int(micro_batch.token_indices[n])] = (*numbers, int(micro_batch.batch_indices[sequence]), before)
    assert [found[number] for number in sorted(found)] == expected


@given(st.lists(payloads(), min_size=1, max_size=20), st.integers(1, 6))
def test_units_are_spread_evenly_over_ranks(samples, ranks):
    batch = step_batch(samples)
    split = split_over_ranks(batch, [[i] for i in range(len(samples))], ranks)
    assert sorted(i for part in split for unit in part for i in unit) == list(range(len(samples)))
    sizes = [sum(len(samples[i].tokens) - 1 for unit in part for i in unit) for part in split]
    assert max(sizes) - min(sizes) <= max(len(p.tokens) - 1 for p in samples)


@given(st.lists(payloads(), min_size=1, max_size=12))
def test_counts_are_the_numbers_of_action_tokens(samples):
    batch = step_batch(samples)
    assert batch.counts.sum() == sum(len(micro_batch.targets) for micro_batch in make_micro_batches(batch, 50))
