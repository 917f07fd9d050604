"""pass@k equals its definition, by enumeration and in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.evaluation.estimators import pass_at_k, standard_error


def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_that_contain_a_right_one() -> None:
    for samples in range(1, 8):
        for right in range(samples + 1):
            for k in range(1, samples + 1):
                choices = list(combinations([True] * right + [False] * (samples - right), k))
                expected = sum(any(choice) for choice in choices) / len(choices)
                assert pass_at_k(samples, right, k) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_stays_exact_where_binomials_overflow(case: tuple[int, int, int]) -> None:
    samples, right, k = case
    exact = 1 - Fraction(comb(samples - right, k), comb(samples, k))
    assert pass_at_k(samples, right, k) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_an_undefined_pass_at_k_raises(samples: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(samples, right, k)


def test_the_standard_error_is_that_of_a_mean_over_tasks() -> None:
    assert standard_error([0.0, 1.0]) == pytest.approx(0.5)
    assert standard_error([1.0, 1.0, 1.0]) == 0.0
    assert standard_error([0.5]) == 0.0
