"""The tolerance of redone steps does not let numbers pass that are none."""

from __future__ import annotations

import math

import pytest
import torch

from consumers.trainer.recovery import _distance


@pytest.mark.parametrize(
    ("redone", "announced", "distance"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [1.0, math.nan], math.inf),
        ([1.0, math.nan], [1.25, math.nan], 0.25),
        ([math.inf, 1.0], [math.inf, 1.0], 0.0),
        ([math.inf, 1.0], [-math.inf, 1.0], math.inf),
        ([], [], 0.0),
    ],
)
def test_what_is_not_a_number_on_one_side_is_infinitely_far(
    redone: list[float], announced: list[float], distance: float
) -> None:
    assert _distance(torch.tensor(redone), torch.tensor(announced)) == distance
