"""Token weights give every token the same share, or every sequence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.algorithms.aggregation import sequence_mean, token_mean
from rft.algorithms.compose import compose
from rft.config import AlgorithmConfig

counts = st.lists(st.integers(0, 50), min_size=1, max_size=30).map(lambda values: np.array(values, dtype=np.int64))


@given(counts)
def test_all_tokens_share_one(values):
    if values.sum():
        assert (token_mean(values) * values).sum() == pytest.approx(1.0)
        assert len(set(token_mean(values))) == 1


@given(counts)
def test_all_sequences_with_tokens_share_one_evenly(values):
    shares = sequence_mean(values) * values
    written = values > 0
    if written.any():
        assert shares[written] == pytest.approx(1.0 / written.sum())
    assert (shares[~written] == 0).all()


@pytest.mark.parametrize("advantage", ["group_normalized", "group_centered"])
@pytest.mark.parametrize("loss", ["clipped", "reinforce"])
@pytest.mark.parametrize("kl", ["none", "k1", "k2", "k3"])
@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_every_configurable_composition_exists(advantage, loss, kl, aggregation):
    algorithm = compose(AlgorithmConfig(advantage=advantage, loss=loss, kl=kl, aggregation=aggregation))
    assert (algorithm.kl is None) == (kl == "none")
