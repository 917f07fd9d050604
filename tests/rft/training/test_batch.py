"""Micro-batches hold every token of every sample once, whatever the cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rft.training.batch import StepBatch, cut, micro_batches, shares
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


def step_batch(payloads):
    size = len(payloads)
    ones = np.ones(size)
    return StepBatch(payloads, ones, np.arange(size), ("rollout",) * size, ones, ones, ones > 1)


@given(st.data(), st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 200))
def test_what_belongs_together_stays_in_one_piece_and_the_rest_is_left_out(data, lengths, max_tokens):
    places = data.draw(st.permutations(range(len(lengths))))
    units = [list(places[i : i + 2]) for i in range(0, data.draw(st.integers(0, len(lengths))), 2)]
    pieces = cut(lengths, max_tokens, units)
    assert sorted(i for piece in pieces for i in piece) == sorted(i for unit in units for i in unit)
    for unit in units:
        assert sum(set(unit) <= set(piece) for piece in pieces) == 1
    for piece in pieces:
        assert piece in units or len(piece) * max(lengths[i] for i in piece) <= max_tokens


@given(st.lists(payloads(), min_size=1, max_size=12), st.integers(1, 80))
def test_each_written_token_is_predicted_once_from_the_tokens_before_it(samples, max_tokens):
    expected = []
    for i, p in enumerate(samples):
        for t in range(1, len(p.tokens)):
            if p.action_mask[t]:
                number = len(expected)
                expected.append((number, tuple(p.tokens[:t]), p.tokens[t], p.logprobs[t], p.versions[t], i))
    found = []
    for batch in micro_batches(step_batch(samples), max_tokens):
        for n, pick in enumerate(batch.picks.tolist()):
            row, place = divmod(pick, len(batch.columns))
            column = int(batch.columns[place])
            assert int(batch.sequences[n]) == row
            numbers = [float(v[n]) for v in (batch.targets, batch.behaviour, batch.versions)]
            inputs = tuple(batch.inputs[row, : column + 1].tolist())
            found.append((int(batch.tokens[n]), inputs, *numbers, int(batch.members[row])))
    assert sorted(found) == expected


@given(st.lists(payloads(), min_size=1, max_size=12), st.integers(1, 80))
def test_a_packed_row_holds_its_sequences_whole_and_each_written_token_once(samples, max_tokens):
    expected = [
        (p.tokens[t], p.logprobs[t], p.versions[t], i, tuple(p.tokens[:t]))
        for i, p in enumerate(samples)
        for t in range(1, len(p.tokens))
        if p.action_mask[t]
    ]
    found = {}
    for piece in micro_batches(step_batch(samples), max_tokens, packed=True):
        assert piece.packed == tuple(len(samples[i].tokens) - 1 for i in piece.members.tolist())
        assert len(piece.packed) == 1 or sum(piece.packed) <= max_tokens
        ends = np.cumsum(piece.packed)
        for n, column in enumerate(piece.columns.tolist()):
            place = int(np.searchsorted(ends, column, side="right"))
            assert place == int(piece.sequences[n])
            begin = int(ends[place]) - piece.packed[place]
            numbers = [float(values[n]) for values in (piece.targets, piece.behaviour, piece.versions)]
            before = tuple(piece.inputs[0, begin : column + 1].tolist())
            assert int(piece.tokens[n]) not in found
            found[int(piece.tokens[n])] = (*numbers, int(piece.members[place]), before)
    assert [found[number] for number in sorted(found)] == expected


@given(st.lists(payloads(), min_size=1, max_size=20), st.integers(1, 6))
def test_ranks_share_all_units_and_none_has_much_more_than_another(samples, ranks):
    batch = step_batch(samples)
    dealt = shares(batch, [[i] for i in range(len(samples))], ranks)
    assert sorted(i for share in dealt for unit in share for i in unit) == list(range(len(samples)))
    sizes = [sum(len(samples[i].tokens) - 1 for unit in share for i in unit) for share in dealt]
    assert max(sizes) - min(sizes) <= max(len(p.tokens) - 1 for p in samples)


@given(st.lists(payloads(), min_size=1, max_size=12))
def test_counts_are_of_the_tokens_learned_from(samples):
    batch = step_batch(samples)
    assert batch.counts.sum() == sum(len(piece.targets) for piece in micro_batches(batch, 50))
