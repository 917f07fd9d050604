"""A short, seeded selection of what ``make chaos`` injects: nothing is lost and nothing trained twice."""

import pytest
from brokers import require_kafka_home

from chaos.harness import run_plan
from chaos.plan import make_plan

pytestmark = [pytest.mark.kafka, pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(600)]

SEED = 7
KINDS = (
    "kill -9 trainer",
    "SIGSTOP processor",
    "kill -9 broker",
    "1 % poison",
    "full disk",
    "network drop",
)


def test_nothing_is_lost_and_nothing_is_trained_twice_whatever_fails(tmp_path, tiny_model):
    require_kafka_home()
    lines = []
    outcome = run_plan(make_plan(SEED, len(KINDS), KINDS), SEED, tmp_path, tiny_model, lines.append)
    assert outcome.findings == [], "\n".join(lines)
    assert outcome.scenarios == 1
    assert sorted(result.kind for result in outcome.results) == sorted(KINDS)
    assert all(result.recovery_s is not None for result in outcome.results)
    assert outcome.steps > len(KINDS)
