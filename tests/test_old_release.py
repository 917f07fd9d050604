"""A later release opens what release 0.1 left: archives, checkpoints, resolved configurations."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import fastavro
import pytest
from brokers import ConfigMaker
from kafka import KafkaProducer
from safetensors.torch import load_file

from rft.config import Config
from rft.config_sources import load_config
from rft.log.topics import ensure_topics
from rft.training.checkpoint import read_checkpoint

OLD = Path(__file__).parent / "fixtures" / "release_0_1"
CHECKPOINT = Path("checkpoints/policy/step-00000004")
STEPS = 6
GROUPS_PER_STEP = 2
NAMESPACE = "rft"
RFT = str(Path(sys.executable).with_name("rft"))


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the old folder, made the working directory."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    return folder


def rft(*words: str) -> dict[str, Any]:
    """Run a command that prints JSON."""
    done = subprocess.run([RFT, *words, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def archived(entity: str) -> list[dict[str, Any]]:
    """Read an archived topic with nothing but fastavro, in order of partition and offset."""
    events: list[dict[str, Any]] = []
    for path in sorted((OLD / "run/archive" / f"{NAMESPACE}.{entity}.v1").glob("*.avro")):
        with path.open("rb") as file:
            events += fastavro.reader(file)
    return sorted(events, key=lambda event: (event["partition"], event["offset"]))


def test_the_audit_of_an_old_archive_balances(old_run: Path) -> None:
    assert rft("audit", "run.toml")["ok"] is True


def test_the_lineage_of_an_old_archive_names_the_trained_experiences(old_run: Path) -> None:
    lineage = json.dumps(rft("lineage", "run.toml", "--weights", str(STEPS)))
    trained = {event["key"].decode() for event in archived("ready") if event["key"].startswith(b"train-")}
    assert sum(f'"{group}/' in lineage for group in trained) == GROUPS_PER_STEP


def test_an_old_archive_is_replayed_to_the_recorded_weights(old_run: Path) -> None:
    """Another kind of CPU rounds otherwise, so the weights are compared with the old checkpoint's as numbers."""
    rft("replay", "run.toml", "--to", "train", "--steps", "1:4", "--name", "again")
    (weights,) = (old_run / "run/replays/again").rglob("step-00000004/model.safetensors")
    expected = load_file(OLD / "run" / CHECKPOINT / "model.safetensors")
    for name, tensor in load_file(weights).items():
        assert (tensor - expected[name]).abs().max() < 1e-4, name


def test_an_old_resolved_configuration_is_read(old_run: Path) -> None:
    config = load_config(old_run / "run/config.resolved.toml")
    assert config.trainer.steps == STEPS
    assert config.run.name == "old"


def test_an_old_checkpoint_says_what_it_was_made_with() -> None:
    state = read_checkpoint(OLD / "run" / CHECKPOINT).state
    assert state.step == 4
    assert state.environment["torch"].startswith("2.")


def test_a_trainer_resumes_from_an_old_checkpoint_and_redoes_the_old_steps(
    old_run: Path, embedded_broker: str, make_config: ConfigMaker
) -> None:
    """The old log is put on a broker as it was; steps 5 and 6, after the checkpoint, are redone from it."""
    config = on_broker(load_config(old_run / "run.toml"), make_config, embedded_broker)
    ensure_topics(config)
    producer = KafkaProducer(bootstrap_servers=embedded_broker, linger_ms=0)
    for entity in ("tasks", "experiences", "ready", "steps", "weights"):
        for event in archived(entity):
            headers = [(header["name"], header["value"]) for header in event["headers"]]
            topic = f"{config.log.namespace}.{entity}.v1"
            sent = producer.send(topic, event["value"], event["key"], headers, event["partition"], event["timestamp"])
            assert sent.get(10).offset == event["offset"]
    producer.close()

    from consumers.trainer import run

    run(config, threading.Event())
    redone = read_checkpoint(config.run.path / f"checkpoints/policy/step-{STEPS:08d}")
    assert redone.state.step == STEPS
    assert redone.state.version == STEPS


def on_broker(config: Config, make_config: ConfigMaker, servers: str) -> Config:
    """Return ``config`` on a running broker, in a namespace of its own. Other kinds of CPU may round otherwise."""
    sections = config.model_dump(include={"run", "tasks", "rollout", "policy", "processor", "eval", "trainer"})
    sections["trainer"]["redo_tolerance"] = 1e-3
    return make_config(servers, **sections, log={"partitions": config.log.partitions})
