"""A run that serves agents has a gateway and explorers, in the modes that learn."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from infra.launcher.role_set import role_arguments
from infra.preflight.facts import Facts
from infra.preflight.gateway import gateway
from rft.config import Config


def served(**sections: Any) -> Config:
    return Config.model_validate({"gateway": {"serve": True}, "eval": {"tasks": 0}, **sections})


@pytest.mark.parametrize("mode", ["explore", "eval"])
def test_agents_are_served_where_something_is_trained(mode: str) -> None:
    with pytest.raises(ValidationError, match=r"gateway\.serve"):
        served(run={"mode": mode})


def test_a_run_starts_explorers_and_a_gateway_although_it_issues_no_tasks() -> None:
    roles = role_arguments(served(run={"mode": "train"}, launcher={"explorers": 2}))
    assert set(roles) == {"archiver", "explorer-0", "explorer-1", "gateway", "processor-0", "trainer"}
    assert "conductor" in role_arguments(served())
    assert "gateway" not in role_arguments(Config())


def test_the_preflight_names_what_a_served_run_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    (warning,) = gateway(Facts(served()))
    assert warning.level == "warn"
    assert "min_group_size" in warning.text
    monkeypatch.delenv("ABSENT", raising=False)
    alone = {"processor": {"min_group_size": 1}}
    (failure,) = gateway(Facts(served(gateway={"serve": True, "token_env": "ABSENT"}, **alone)))
    assert (failure.level, failure.exit_code) == ("fail", 2)
    monkeypatch.setenv("ABSENT", "x" * 40)
    assert list(gateway(Facts(served(gateway={"serve": True, "token_env": "ABSENT"}, **alone)))) == []
    assert list(gateway(Facts(Config()))) == []
