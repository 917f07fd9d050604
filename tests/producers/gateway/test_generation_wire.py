"""What a gateway and an explorer say to each other survives the way, and junk is one clear error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.gateway.generation_wire import read_generation, read_request, write_generation, write_request
from rft.errors import PolicyError, RequestError
from rft.policy.base import Generation, Sampling

SAMPLING = Sampling(8, 0.7, 0.9, 5, ("\n", "né"))
GENERATION = Generation(
    np.array([1, 2**31 - 1], np.int32), np.array([-0.5, -0.0], np.float32), np.array([3, 4], np.int32), "length"
)


@given(
    st.lists(st.integers(0, 2**31 - 1)),
    st.integers(1, 2**24 - 1),
    st.floats(0, 10),
    st.integers(0, 2**63 - 1),
    st.lists(st.text(), max_size=3),
)
def test_a_request_arrives_as_it_was(
    prompt: list[int], most: int, temperature: float, seed: int, stop: list[str]
) -> None:
    sampling = Sampling(most, temperature, 0.25, seed, tuple(stop))
    assert read_request(json.loads(json.dumps(write_request(prompt, sampling)))) == (prompt, sampling)


def test_a_generation_arrives_bit_for_bit() -> None:
    found = read_generation(json.loads(json.dumps(write_generation(GENERATION))), SAMPLING)
    for name in ("tokens", "logprobs", "versions"):
        sent, got = getattr(GENERATION, name), getattr(found, name)
        assert (got.dtype, got.tobytes()) == (sent.dtype, sent.tobytes())
    assert found.finish_reason == "length"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("prompt", value) for value in (None, 3, "?", "AAA=", [1])),
        *(("max_tokens", value) for value in (None, "8", -1, 2**24, True, 1.5)),
        *(("temperature", value) for value in (None, "1", True)),
        *(("seed", value) for value in (-1, 2**63, None)),
        *(("stop", value) for value in (None, "x", [1])),
    ],
)
def test_a_wrong_field_of_a_request_is_named(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=field):
        read_request(write_request([1], SAMPLING) | {field: value})


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": ""},
        {"tokens": "AQAAAA=="},
        {"logprobs": "AADAfwAAwH8="},
        {"versions": None},
        {"versions": "/////wAAAAA="},
        {"tokens": "/////wAAAAA="},
        {"finish_reason": "error"},
        {"finish_reason": 3},
    ],
)
def test_an_answer_that_cannot_be_learned_from_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        read_generation(write_generation(GENERATION) | change, SAMPLING)


def test_more_tokens_than_asked_for_are_refused() -> None:
    with pytest.raises(PolicyError, match="at most 1"):
        read_generation(write_generation(GENERATION), Sampling(1))
