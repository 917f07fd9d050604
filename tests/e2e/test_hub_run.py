"""A run whose model and tasks come from the hub: looked at, begun, resumed after the hub has moved, used offline."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from chat_models import make_chat_model
from hub_server import HubServer, hub_server
from pipeline import RFT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SETTINGS = """
[run]
name = "hub"
[broker]
kind = "{broker}"
[log]
partitions = 1
[tasks]
source = "hf:test/sums"
options = {{ question_field = "q", answer_field = "a" }}
[rollout]
samples = 2
max_tokens = 4
[policy]
model = "test/tiny"
[trainer]
steps = {steps}
groups_per_step = 1
[eval]
tasks = 2
"""


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = make_chat_model(tmp_path_factory.mktemp("hub-model"), "qwen3", context=128)
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"pytorch_model.bin": b"never"}


@pytest.fixture
def hub(model_files: dict[str, bytes]) -> Iterator[HubServer]:
    with hub_server() as server:
        server.add("models", "test/tiny", model_files)
        server.add("datasets", "test/sums", {"data/train-0.parquet": sums(40), "data/test-0.parquet": b"never"})
        yield server


def sums(count: int) -> bytes:
    file = io.BytesIO()
    rows = [{"q": f"{number} + 1 = ", "a": str(number + 1)} for number in range(count)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


class Project:
    """A working directory with a configuration, and a cache of its own."""

    def __init__(self, hub: HubServer, folder: Path, **values: object) -> None:
        self.hub, self.folder = hub, folder
        self.path = folder / "runs" / "hub"
        (folder / "run.toml").write_text(SETTINGS.format(**values))

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [RFT, *words],
            cwd=self.folder,
            env=self.hub.environment(self.folder / "home", COLUMNS="200", **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rft(self, *words: str, code: int = 0, **environment: str) -> str:
        output, _ = (process := self.start(*words, **environment)).communicate(timeout=300)
        assert process.returncode == code, output
        return output

    @property
    def resolved(self) -> dict[str, dict[str, object]]:
        return tomllib.loads((self.path / "config.resolved.toml").read_text())


def test_a_run_downloads_once_what_doctor_has_announced_and_evaluates_offline(hub: HubServer, tmp_path: Path) -> None:
    project = Project(hub, tmp_path, broker="embedded", steps=2)
    announced = project.rft("doctor", "run.toml")
    assert "policy.model: test/tiny@" in announced
    assert announced.count("will be downloaded") == 2
    assert "model.safetensors" not in hub.downloads()

    output = project.rft("run", "run.toml", "--plain")
    assert "policy.model: test/tiny@" in output
    assert hub.downloads().count("model.safetensors") == hub.downloads().count("train-0.parquet") == 1
    assert {"pytorch_model.bin", "test-0.parquet"}.isdisjoint(hub.downloads())
    model = hub.repositories["models/test/tiny"].branches["main"]
    tasks = hub.repositories["datasets/test/sums"].branches["main"]
    assert project.resolved["policy"]["model"] == "test/tiny"
    assert (project.resolved["policy"]["revision"], project.resolved["tasks"]["revision"]) == (model, tasks)
    noted = {"model test/tiny@main": model, "dataset test/sums@main": tasks}
    assert json.loads((project.path / "hub_revisions.json").read_text()) == noted
    checkpoint = max(project.path.glob("checkpoints/policy/step-*"))
    assert json.loads((checkpoint / "trainer" / "state.json").read_text())["hub_revisions"] == noted

    hub.repositories["models/test/tiny"].push({"config.json": b"{}"})
    assert "start" in project.rft("eval", "run.toml", "--weights", "start", HF_HUB_OFFLINE="1")
    assert f"test/tiny@{model[:12]} is in the cache" in project.rft("doctor", "run.toml")
    refused = project.rft("run", "run.toml", "--policy.model", "test/absent", code=1, HF_HUB_OFFLINE="1")
    assert "there is no folder test/absent, and HF_HUB_OFFLINE is set" in refused
    assert "`hf download test/absent`" in refused
    assert (project.path / "report.json").exists()


@pytest.mark.kafka
def test_a_resumed_run_keeps_its_revisions_when_the_hub_has_moved(
    hub: HubServer, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    project = Project(hub, tmp_path, broker="kafka", steps=100_000)
    model, tasks = hub.repositories["models/test/tiny"], hub.repositories["datasets/test/sums"]
    before = (model.branches["main"], tasks.branches["main"])
    process = project.start("run", "run.toml", "--plain")
    deadline = time.monotonic() + 200
    while not list(project.path.glob("weights/policy/v0*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=100)

    model.push(model_files | {"config.json": b"broken"})
    tasks.push({"data/train-0.parquet": b"broken"})
    moved = {model.branches["main"], tasks.branches["main"]}
    done = max(int(version.name[1:]) for version in project.path.glob("weights/policy/v0*"))
    output = project.rft("run", "run.toml", "--plain", "--trainer.steps", str(done + 3))
    assert "resuming the run" in output
    assert (project.resolved["policy"]["revision"], project.resolved["tasks"]["revision"]) == before
    assert not [request for request in hub.requests if any(commit in request for commit in moved)]
