"""Collectives while members die, hang and join, and the broker restarts: no one waits long, no weights are wrong."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from brokers import require_kafka_home
from pipeline import Pipeline, settings
from test_faults import Steps

from consumers.audit import audit
from rft.config_sources import load_config
from rft.log.opening import open_log
from schemas.events import Member, TrainingStep, WeightVersion

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(900)]

DEADLINE_S = 6.0
SLACK_S = 2.0
"""How late a thread may notice that a deadline has passed, on a busy machine."""
OUTAGE_LIMIT_S = 300
"""Limit for each wait: only a run without progress must fail."""
UPDATES = int(os.environ.get("RFT_TEST_UPDATES", "100"))


def victim(folder: Path, name: str) -> int | None:
    """Return the process that took the file ``name``."""
    return next((int(path.suffix[1:]) for path in folder.glob(f"{name}.*")), None)


def taken(folder: Path) -> dict[int, list[tuple[int, str]]]:
    """Return the versions and digests that each explorer took into use, by its process."""
    return {
        int(path.suffix[1:]): [(int(version), digest) for version, digest in map(str.split, path.open())]
        for path in folder.glob("took.*")
    }


def newest_held(folder: Path, alive: set[int]) -> set[int]:
    """Return the newest versions that the explorers hold; 0 for one that holds none yet."""
    held = taken(folder)
    return {held[pid][-1][0] if held.get(pid) else 0 for pid in alive}


def reach(run: Pipeline, progress: Steps, step: int) -> None:
    run.wait_until(lambda: progress.reached(step), OUTAGE_LIMIT_S, f"step {step}")


def test_updates_go_on_while_explorers_die_hang_and_join_and_kafka_restarts(
    pipeline: Callable[..., Pipeline], tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three explorers over gloo: one is killed and one is stopped in the middle of a transfer (and goes on after its
    deadline), a fourth joins late, Kafka is killed once. Every update ends within its deadline, explorers use only
    weights that were announced, all live ones hold the last version, and the audit balances."""
    require_kafka_home()
    folder = tmp_path / "hurt"
    folder.mkdir()
    monkeypatch.setenv("HURT", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    run = pipeline(
        settings(
            tmp_path, tiny_model,
            broker={"kind": "kafka"},
            rollout={"samples": 4, "max_tokens": 6, "deadline_s": 240, "workflow": "hurt_explorers:hurt"},
            trainer={"steps": UPDATES, "groups_per_step": 3, "learning_rate": 1e-4, "checkpoint_interval": 50},
            weights={"transport": "collective", "bucket_mb": 0.1, "deadline_s": DEADLINE_S, "stall_s": 1.5,
                     "verify": "sha256", "checkpoint_every": 25},
            launcher={"explorers": 3},
            archive={"enabled": True},
            eval={"tasks": 12},
        )
    )  # fmt: skip
    resolved = run.config.run.path / "config.resolved.toml"
    run.wait_until(resolved.exists, OUTAGE_LIMIT_S, "resolved configuration")
    run.config = load_config(resolved)
    progress, late = Steps(run), None
    try:
        reach(run, progress, UPDATES // 20)
        (folder / "kill").touch()
        run.wait_until(lambda: victim(folder, "kill") is not None, OUTAGE_LIMIT_S, "a death in a transfer")
        reach(run, progress, progress.latest + 5)

        (folder / "stop").touch()
        run.wait_until(lambda: victim(folder, "stop") is not None, OUTAGE_LIMIT_S, "a stop in a transfer")
        late = subprocess.Popen([sys.executable, "-P", "-m", "infra.cli", "explorer", str(resolved)])
        began, during = time.monotonic(), progress.latest
        reach(run, progress, during + 3)
        time.sleep(max(DEADLINE_S + 1 - (time.monotonic() - began), 0))
        (folder / "hold").touch()
        psutil.Process(victim(folder, "stop")).send_signal(signal.SIGCONT)
        # Nothing is trained now, so no epoch will come: only the folder that is written for late members can help.
        alive = {late.pid, *(process.pid for process in run.role("explorer"))}
        assert len(alive) == 4
        run.wait_until(lambda: len(newest_held(folder, alive)) == 1, OUTAGE_LIMIT_S, "one version in all explorers")
        (folder / "hold").unlink()

        reach(run, progress, progress.latest + 3)
        (broker,) = [p for p in psutil.Process(run.process.pid).children(recursive=True) if p.name() == "java"]
        broker.kill()
        reach(run, progress, progress.latest + 3)
        assert run.wait(OUTAGE_LIMIT_S) == 0, run.tail()
    finally:
        progress.close()
        if late is not None:
            late.kill()
            late.wait()

    with open_log(run.config, run.config.archive_url) as view:
        audited = audit(run.config, view)
        versions = [event.record(WeightVersion) for event in view.read("weights")]
        members = {member.member_id: member for member in (event.record(Member) for event in view.read("members"))}
        steps = [step for step in (event.record(TrainingStep) for event in view.read("steps")) if step.kind == "step"]
    assert audited.ok, audited.problems
    assert [step.step for step in steps] == list(range(1, UPDATES + 1))
    check_weights(versions, taken(folder))
    check_updates(steps)
    final = versions[-1]
    assert final.final
    late_name = f"explorer-{platform.node()}-{late.pid}"
    lived = {name: member for name, member in members.items() if member.state == "left" or name == late_name}
    assert len(lived) == 4, "three explorers, one of them started again after its death, and the late one"
    assert {name: (m.version, m.sha256) for name, m in lived.items()} == dict.fromkeys(
        lived, (final.version, final.sha256)
    )
    assert all(member.stats["received"] > 0 for member in lived.values()), (
        "a member received no transfer and read only folders"
    )
    assert sum(member.stats["missed"] for member in members.values()) > 0
    assert members[late_name].transport == "collective"


def check_weights(versions: list[WeightVersion], taken: dict[int, list[tuple[int, str]]]) -> None:
    """Explorers used, by a new hash, the weights that were announced, and each version is one set of weights."""
    announced = {version.version: version.sha256 for version in versions}
    assert all(announced[version.version] == version.sha256 for version in versions)
    assert sorted(announced) == list(range(UPDATES + 1))
    for held in taken.values():
        assert [number for number, _ in held] == sorted({number for number, _ in held})
        assert all(announced[number] == digest for number, digest in held)
    newest = -1
    for version in versions:
        assert version.version >= newest, "an older version was announced after a newer one"
        newest = version.version
        assert version.uri or version.stored_uri, "a late joiner would find no folder"
    epochs = [version.epoch for version in versions if version.members]
    assert epochs == sorted(set(epochs))


def check_updates(steps: list[TrainingStep]) -> None:
    metrics = [step.metrics for step in steps]
    seconds = [one["weights_update_s"] for one in metrics if "weights_update_s" in one]
    assert len(seconds) > UPDATES / 2
    assert max(seconds) < DEADLINE_S + SLACK_S
    assert sum(one.get("weights_missed", 0) for one in metrics) >= 2
    assert max(one.get("weights_members", 0) for one in metrics) == 4
