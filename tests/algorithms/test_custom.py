"""Custom algorithms are found by function name or entry point, and a faulty one is reported before anything runs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from random_steps import random_case, run

from rft.algorithms.compose import compose, loss_has_option
from rft.algorithms.presets import ENTRY_POINTS
from rft.config import AlgorithmConfig, Config
from rft.config_sources import load_config
from rft.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_algorithm"


def test_the_example_is_short_and_its_functions_compute_the_loss():
    assert len((EXAMPLE / "my_algorithm.py").read_text().splitlines()) < 40
    config = load_config(EXAMPLE / "own_algorithm.toml").algorithm
    case = random_case(0)
    result = run(case, **config.model_dump(exclude_defaults=True))
    batch, total, index = case.batch, 0.0, 0
    with torch.no_grad():
        logits = case.policy.output(case.policy.hidden).double()
    for i, payload in enumerate(batch.payloads):
        own = batch.rewards[batch.groups == batch.groups[i]]
        rank = sum(1.0 if batch.rewards[i] > r else 0.5 if batch.rewards[i] == r else 0.0 for r in own) / len(own)
        rows = []
        for t in np.flatnonzero(payload.action_mask):
            distribution = torch.log_softmax(logits[index] / (float(batch.temperatures[i]) or 1.0), -1)
            logprob = float(distribution[int(payload.tokens[t])])
            rows.append((logprob, np.exp(logprob - float(payload.logprobs[t]))))
            index += 1
        cap = np.quantile([ratio for _, ratio in rows], 0.9)
        advantage = 2 * (rank - 0.5)
        total -= sum(min(ratio, cap) * advantage * p for p, ratio in rows) / len(rows) / len(batch)
    assert result.loss == pytest.approx(total, rel=1e-5)


def test_a_package_can_offer_an_algorithm_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text(
        "from rft.algorithms.presets import Preset\n"
        "PRESET = Preset('group_centered', lambda tokens, *, power=1.0: -tokens.advantages * tokens.logprobs * power)\n"
        "BROKEN = 3\n"
    )
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{ENTRY_POINTS}]\ntheirs = their_package:PRESET\nbroken = their_package:BROKEN\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    case = random_case(1)
    double = run(case, name="theirs", loss_options={"power": 2.0})
    same = run(case, name="theirs")
    assert double.loss == pytest.approx(2 * same.loss)
    plain = run(case, advantage="group_centered", loss="reinforce")
    assert same.loss == pytest.approx(plain.loss)
    with pytest.raises(ConfigError, match=r"broken.*not an rft\.algorithms\.presets\.Preset"):
        compose(AlgorithmConfig(name="broken"))


def two_numbers(tokens):
    return torch.zeros(3)


def grouped_wrongly(rewards, groups, extra):
    return rewards


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "grop"}, r"algorithm.name = 'grop' is unknown \(did you mean 'grpo'\?\); choose grpo, "),
        ({"loss": "cliped"}, r"algorithm.loss = 'cliped' is unknown \(did you mean 'clipped'\?\); choose "),
        ({"loss": "no_such_package:loss"}, "importing 'no_such_package' failed"),
        (
            {"loss": "test_custom:two_numbers"},
            r"one number for each of two, it returned Tensor of shape \(3,\)",
        ),
        ({"advantage": "test_custom:grouped_wrongly"}, "must take \\(rewards, groups\\)"),
        ({"loss_options": {"beta": 1}}, "'clipped' has no option beta; it has clip_low, clip_high, dual_clip"),
        ({"name": "gspo", "dual_clip": 2.0}, "'gspo' has no option dual_clip"),
        ({"name": "rec", "loss_options": {"clip": "both"}}, "fails on two samples of one token: KeyError: 'both'"),
        ({"name": "distill"}, "algorithm.teacher must name"),
        ({"correction": "tis", "old": "sampler"}, "contradicts algorithm.correction"),
    ],
)
def test_an_algorithm_that_cannot_be_composed_is_reported_before_anything_runs(fields, message):
    with pytest.raises(ConfigError, match=message):
        compose(AlgorithmConfig(**fields))


def test_dapo_drops_uniform_groups_unless_configured_otherwise():
    assert Config(algorithm={"name": "dapo"}).processor.drop_uniform_groups
    assert not Config(algorithm={"name": "grpo"}).processor.drop_uniform_groups
    configured = Config(algorithm={"name": "dapo"}, processor={"drop_uniform_groups": False})
    assert not configured.processor.drop_uniform_groups


def test_only_losses_with_a_dual_clip_have_that_option():
    assert loss_has_option(AlgorithmConfig(), "dual_clip")
    assert not loss_has_option(AlgorithmConfig(name="gspo"), "dual_clip")
