"""The loop with a schema registry: every event has Confluent's framing, and its archive can be read."""

import pytest
from pipeline import settings

from consumers.audit import audit
from rft.log.opening import open_log

pytestmark = [pytest.mark.e2e, pytest.mark.registry, pytest.mark.timeout(240)]


def test_one_command_runs_the_loop_with_a_schema_registry(pipeline, tmp_path, tiny_model, registry):
    run = pipeline(settings(tmp_path, tiny_model, registry={"url": registry.url}))
    assert run.wait(180) == 0, run.tail()
    assert run.report["steps"] == 12
    assert run.report["experiences"]["dead_lettered"] == 0
    with open_log(run.config) as view:
        for entity in ("tasks", "experiences", "ready", "weights", "members", "steps"):
            events = list(view.read(entity))
            assert events, entity
            assert {(event.value or b"")[:1] for event in events} == {b"\0"}, entity
        assert audit(run.config, view).ok
