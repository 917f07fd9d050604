"""Settings that hardly do what their user expects are named before the run, with what to set instead."""

from __future__ import annotations

from typing import Any

import pytest

from rft.algorithms.advice import algorithm_warnings
from rft.config import Config

K1 = {"kl": "k1", "kl_coef": 0.1}
LORA = {"lora": {"rank": 8}}
GDPO = {"name": "gdpo"}
UNIFORM = {"drop_uniform_groups": True}


def warnings(**sections: Any) -> list[str]:
    return algorithm_warnings(Config(policy={"model": "m"}, **sections))


@pytest.mark.parametrize(
    ("sections", "what", "remedy"),
    [
        ({"algorithm": K1}, "its gradient is 0", "kl_unbiased = true"),
        ({"trainer": LORA}, "learning_rate = 1e-05 is low", "about 1e-4"),
        (
            {"algorithm": {"name": "ppo", "value_warmup": 9}, "trainer": {"steps": 9}},
            "never learns",
            "Lower value_warmup",
        ),
        ({"algorithm": {"teacher": "t"}}, "teacher has no effect: 'grpo'", "Set algorithm.teacher_coef"),
        ({"algorithm": GDPO, "processor": UNIFORM}, "single rewards differ", "drop_uniform_groups = false"),
    ],
)
def test_it_is_named_with_a_remedy(sections: dict[str, Any], what: str, remedy: str) -> None:
    (warning,) = warnings(**sections)
    assert what in warning
    assert remedy in warning


@pytest.mark.parametrize(
    "sections",
    [
        {},
        *({"algorithm": K1 | one} for one in ({"kl_unbiased": True}, {"kl_in": "reward"}, {"kl": "k3"})),
        {"algorithm": K1 | {"kl_coef": 0.0}},
        {"trainer": LORA | {"learning_rate": 1e-4}},
        {"trainer": {"learning_rate": 1e-6}},
        {"algorithm": {"name": "ppo", "value_warmup": 8}, "trainer": {"steps": 9}},
        *({"algorithm": {"teacher": "t"} | one} for one in ({"name": "distill"}, {"teacher_coef": 0.1})),
        *({"algorithm": {"teacher": "t", "advantage": one}} for one in ("teacher_jsd", "mine:of_the_teacher")),
        {"algorithm": GDPO},
        {"processor": UNIFORM},
    ],
)
def test_what_is_meant_is_not_warned_of(sections: dict[str, Any]) -> None:
    assert warnings(**sections) == []
