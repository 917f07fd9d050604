"""The example of tools, shortened: what a model wrote around the answers of its tools is trained on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pipeline import RFT
from test_data_examples import EXAMPLES, audit, run

from rft.config_sources import load_config
from rft.log.opening import open_log
from rft.policy.loading import load_tokenizer
from schemas.events import Experience

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_model_that_calls_tools_learns_from_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools are those of the example, found from the working directory."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    run(tmp_path, sys.executable, "examples/tools/make_data.py")
    short = ["--trainer.steps", "3", "--trainer.groups_per_step", "4", "--eval.tasks", "20", "--log.partitions", "2"]
    run(tmp_path, RFT, "run", "examples/tools/tools.toml", "--plain", *short)
    monkeypatch.chdir(tmp_path)
    assert audit(tmp_path / "runs" / "tools")["ok"]
    config = load_config(tmp_path / "runs" / "tools" / "config.resolved.toml")
    with open_log(config, config.archive_url) as view:
        experiences = [event.record(Experience) for event in view.read("experiences")]
        assert list(view.read("dlq")) == []
    tokenizer = load_tokenizer(tmp_path / "runs" / "tools-data" / "model")
    answered = 0
    for experience in experiences:
        assert experience.error is None
        about = json.loads(experience.metadata)["rollout"]
        assert about["turns"] >= 1
        written = experience.tokens[experience.action_mask == 1].tolist()
        text = tokenizer.decode(written)
        if about["tool_calls"] > about["failed_calls"]:
            answered += 1
            assert "(a=" in text
            read = tokenizer.decode(experience.tokens[experience.action_mask == 0].tolist())
            assert read.startswith(f"<user>{experience.prompt.removeprefix('<user>').removesuffix('<model>')}<model>")
            assert "<tool>" in read
    assert answered > len(experiences) / 4
