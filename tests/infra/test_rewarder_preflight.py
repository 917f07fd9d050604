"""The preflight names what is wrong with a rewarder, before a run and without loading its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.preflight.checks import find_all
from rft.config import Config


def findings(**rewarder: Any) -> list[tuple[str, str]]:
    config = Config.model_validate(
        {"rewarders": {"grader": rewarder}, "processor": {"external": {"required": ["grader"]}}}
    )
    return [(one.level, one.text) for one in find_all(config, {"rewarder"})]


@pytest.mark.parametrize(
    ("rewarder", "text"),
    [
        ({"function": "jugde"}, "did you mean 'judge'"),
        ({"function": "no_such_module:function"}, "importing 'no_such_module' failed"),
        ({"function": "exact_match", "options": {"case": True}}, "its options are ignore_case"),
        ({"function": "judge", "options": {"model": "m"}}, "options.base_url: Field required"),
        ({"function": "code_tests", "options": {"memory": 1}}, "the options of code_tests are tests"),
        ({"function": "reward_model", "options": {"folder": "/no/such"}}, "holds no model"),
    ],
)
def test_faults_are_named(rewarder: dict[str, Any], text: str) -> None:
    ((level, found),) = findings(**rewarder)
    assert level == "fail"
    assert text in found


def test_what_is_right_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert findings(function="exact_match") == [("ok", "rewarder grader: exact_match")]
    options = {"base_url": "https://judge.example/v1", "model": "m"}
    (warning, good) = findings(function="judge", options=options)
    assert warning[0] == "warn"
    assert "OPENAI_API_KEY is not set" in warning[1]
    assert good == ("ok", "rewarder grader: judge")
    (tmp_path / "config.json").write_text("{}")
    ((_, found),) = findings(function="reward_model", options={"folder": str(tmp_path)})
    assert "other formats may run code" in found
