"""Three nodes: what happens to a cluster and what its other users do loses nothing, and no role waits in silence."""

import pytest
from brokers import require_kafka_home

from chaos.harness import run_plan
from chaos.plan import ENDINGS, NEIGHBORS, make_plan
from chaos.table import SLOW_S

pytestmark = [pytest.mark.kafka, pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1200)]

SEED = 85
"""Draws few processes for the deployments, to save time: one explorer, one or two processors."""
KINDS = (
    "kill -9 leader",
    "kill -9 controller",
    "preferred election",
    "unclean election",
    "rolling restart",
    "lagging follower",
    "two nodes down 5 s",
    "outage of 5 s",
    *NEIGHBORS,
    *ENDINGS,
)


def test_fourteen_faults_of_a_cluster_and_its_other_users_lose_nothing_and_stall_nothing(tmp_path, tiny_model):
    """Twelve are survived by one deployment. After partitions are added or a topic is recreated, a run must end."""
    require_kafka_home()
    lines = []
    plan = make_plan(SEED, len(KINDS), KINDS)
    outcome = run_plan(plan, SEED, tmp_path, tiny_model, lines.append, nodes=3)
    assert outcome.findings == [], "\n".join(lines)
    assert outcome.scenarios == len(plan) == 3
    assert sorted(result.kind for result in outcome.results) == sorted(KINDS)
    assert len(KINDS) == 14
    assert outcome.steps > len(KINDS)
    recoveries = [result.after_s for result in outcome.results if result.after_s is not None]
    assert len(recoveries) == len(KINDS)
    assert max(recoveries) <= SLOW_S, "\n".join(lines)
