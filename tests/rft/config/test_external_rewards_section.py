"""``[processor.external]``: what cannot work is refused with what to do."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from producers.conductor.pacing import Pace
from rft.config import Config


def config(mode: str = "online", **external: object) -> Config:
    return Config.model_validate({"run": {"mode": mode}, "processor": {"external": external}})


def test_waiting_groups_hold_their_slots_unless_pacing_frees_them() -> None:
    assert Pace.from_config(config(required=["human"])).free_waiting == 0
    assert Pace.from_config(config(required=["human"], pacing="free", max_waiting=7)).free_waiting == 7


def test_where_nothing_is_trained_waiting_groups_hold_their_slots() -> None:
    """Otherwise more tasks than wanted would be explored."""
    assert Pace.from_config(config("explore", required=["human"], pacing="free")).free_waiting == 0


@pytest.mark.parametrize(
    ("external", "problem"),
    [
        ({"pacing": "free"}, "needs a required source"),
        ({"pacing": "release", "required": ["human"]}, "'hold' or 'free'"),
        ({"pacing": "free", "required": ["human"], "max_waiting": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(external: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        config(**external)
