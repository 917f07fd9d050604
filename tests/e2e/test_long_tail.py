"""Runs with a few very slow rollouts: held steps drop none of them, and spare rollouts do without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pipeline import settings

from consumers.audit import audit
from rft.log.opening import open_log

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

STEPS, GROUPS, SAMPLES = 8, 4, 4


@pytest.mark.parametrize(
    ("max_staleness", "sections"),
    [(1, {"buffer": {"too_stale": "hold"}}), (0, {"rollout": {"spare": 4}}), (0, {"buffer": {"too_stale": "keep"}})],
    ids=["hold", "spare", "keep"],
)
def test_no_step_loses_its_slowest_rollouts_but_as_configured(
    pipeline, tmp_path, tiny_model, monkeypatch, max_staleness, sections
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    rollout = {"samples": SAMPLES, "max_tokens": 6, "workflow": "stragglers:straggle"} | sections.pop("rollout", {})
    trainer = {"steps": STEPS, "groups_per_step": GROUPS, "max_staleness": max_staleness}
    run = pipeline(settings(tmp_path, tiny_model, rollout=rollout, trainer=trainer, eval={"tasks": 0}, **sections))
    assert run.wait(200) == 0, run.tail()
    report = run.report
    with open_log(run.config) as view:
        audited = audit(run.config, view)
    assert audited.ok, audited.problems
    assert report["long_tail"]["dropped"]["rollouts"] == 0
    assert report["experiences"]["trained"] == STEPS * GROUPS * SAMPLES
    cancelled = report["explorers"]["cancelled"]
    if "spare" in rollout:
        assert cancelled > 0
        assert report["trainer"]["training_s"] < STEPS * 3.0
        assert report["staleness"]["max"] == 0
    else:
        assert cancelled == 0
        assert report["long_tail"]["trained"]["seconds_mean"] > 0.2, "the slow ones are among them"
