"""What the preflight says of a shipped algorithm is what composing it says, and needs no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from infra.preflight import algorithm, shipped_functions
from rft.algorithms import compose
from rft.algorithms.inputs import needs_of
from rft.algorithms.presets import PRESETS
from rft.config import AlgorithmConfig, Config
from rft.errors import ConfigError

SETTINGS: list[dict[str, Any]] = [
    {}, {"clip_low": 0.1}, {"dual_clip": 3.0}, {"kl": "k3", "kl_coef": 0.1}, {"kl": "k9"}, {"loss": "gspo"},
    {"loss": "nope"}, {"advantage": "teacher_gap"}, {"advantage": "nope"}, {"aggregation": "nope"},
    {"reference_reset": 3}, {"correction": "tis", "old": "sampler"}, {"kl_unbiased": True, "kl_in": "reward"},
    {"filters": ["best", "nope"]}, {"token_filter": "clip_cov"}, {"token_filter": "nope"}, {"value_warmup": 3},
]  # fmt: skip


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", PRESETS)
def test_both_find_the_same_faults(name: str) -> None:
    for settings in SETTINGS:
        config = AlgorithmConfig(name=name, **({"teacher": "folder"} if name == "distill" else {}), **settings)
        if algorithm.is_tried(config):
            continue
        by_name = error_of(lambda config=config: algorithm._check(Config(algorithm=config)))
        assert by_name == error_of(lambda config=config: compose.compose(config)), settings


@pytest.mark.parametrize("table", shipped_functions.TABLES)
def test_names_options_and_needs_are_those_of_the_functions(table: str) -> None:
    functions: dict[str, Any] = getattr(compose, table)
    assert shipped_functions.names(table) == tuple(functions)
    if table not in ("ADVANTAGES", "LOSSES", "TOKEN_FILTERS"):
        return
    for name, function in functions.items():
        parameters = inspect.signature(function).parameters.values()
        options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY or p.default is not p.empty]
        assert list(shipped_functions.options(name)) == options
        declared = set(shipped_functions.needs(name))
        needed = needs_of(function)
        assert {one for one in declared if not getattr(needed, one)} == set()
        assert {one for one in ("reference", "teacher", "values", "reward_terms") if getattr(needed, one)} <= declared
