"""Tests a trainer whose versions travel by collectives: the run is the same, explorers hold what was announced."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from safetensors.torch import load_file
from synthetic import make_tiny_model, publish, scored
from trainer_runs import COLLECTIVE_KILL_POINTS, KILL_POINTS, settings, start_trainer, steps_of, train, versions_of
from transformers import AutoModelForCausalLM

from producers.explorer.follower import WeightsFollower
from rft.config import Config
from rft.errors import CheckpointError
from rft.log.writer import EventWriter
from rft.policy.transformers.policy import TransformersPolicy
from rft.weights.version_folders import fetch
from schemas.events import Member

GROUPS, SIZE, STEPS = 36, 4, 12
COLLECTIVE = {
    "transport": "collective",
    "bucket_mb": 0.001,
    "deadline_s": 10,
    "stall_s": 2,
    "checkpoint_every": 5,
    "verify": "sha256",
}


class Explorer:
    """An explorer without rollouts: policy, follower and announcements, in this process."""

    def __init__(self, config: Config, name: str) -> None:
        self.name = name
        self.backend = config.weights.backend
        self.policy = TransformersPolicy(config.policy)
        self.writer = EventWriter(config, name)
        self.follower = WeightsFollower(config, name, self.policy, changed=lambda _: self.announce())
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._open.set()
        self.follower.start()
        self._thread.start()

    def announce(self) -> None:
        held = self.follower.held
        self.writer.send(
            "members",
            Member(
                self.name, "explorer", "transformers", "here", held.version, held.sha256, "", 0, self.follower.stats,
                "collective", self.backend, 1, self.follower.epoch, "here",
            ),
        )  # fmt: skip

    def _run(self) -> None:
        while self._open.is_set():
            self.announce()
            time.sleep(0.3)

    def close(self) -> None:
        self._open.clear()
        self._thread.join()
        self.follower.close(10)
        self.policy.close()
        self.writer.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def new_run(make_config, embedded_broker, tmp_path, model):
    def make(name: str, weights: dict, groups: int = GROUPS, **trainer) -> Config:
        config = make_config(embedded_broker, **settings(tmp_path, name, model, **trainer), weights=weights)
        publish(config, [scored(number, sample, SIZE) for number in range(groups) for sample in range(SIZE)])
        return config

    return make


@pytest.fixture
def explorer() -> Iterator[Callable[[Config, str], Explorer]]:
    started: list[Explorer] = []

    def start(config: Config, name: str) -> Explorer:
        started.append(Explorer(config, name))
        return started[-1]

    yield start
    for one in started:
        one.close()


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"no {what} within {timeout_s} s"
        time.sleep(0.05)


def test_a_run_killed_around_its_transfers_equals_the_undisturbed_run(new_run, explorer):
    undisturbed = new_run("undisturbed", {})
    train(undisturbed)
    config = new_run("killed", COLLECTIVE)
    member = explorer(config, "explorer-a")
    for point in ("between a step and its weights", "after the weights are announced", "before a step is recorded"):
        process = start_trainer(config, kill=COLLECTIVE_KILL_POINTS[point])
        process.join(90)
        assert process.exitcode == -signal.SIGKILL, point
    process = start_trainer(config)
    process.join(90)
    assert process.exitcode == 0

    steps = steps_of(config)
    assert [step.digest for step in steps] == [step.digest for step in steps_of(undisturbed)]
    versions = versions_of(config)
    digests = {version.version: version.sha256 for version in versions}
    assert digests == {version.version: version.sha256 for version in versions_of(undisturbed)}
    assert all(digests[version.version] == version.sha256 for version in versions)
    epochs = [version.epoch for version in versions if version.members]
    assert epochs
    assert epochs == sorted(set(epochs)), "epochs count up through restarts"
    wait_for(lambda: member.follower.held.version == STEPS, "last version")
    assert member.follower.held.sha256 == digests[STEPS]
    assert member.follower.stats["received"] > 0
    assert member.follower.stats["received_bytes"] > 0
    assert versions[-1].final
    fetch(versions[-1], config.run.path)
    # A step carries what was measured since the one before it: of some transfer, not always of the last one.
    measured = {name: value for step in steps for name, value in step.metrics.items()}
    assert max(step.metrics.get("weights_members", 0) for step in steps) == 1
    assert measured["weights_bytes_per_s"] > 0
    assert 0 < measured["weights_update_s"] < 10


@pytest.mark.parametrize("backend", ["gloo", "ipc"])
def test_a_member_that_joins_while_nothing_is_trained_gets_a_folder_and_then_takes_part(new_run, explorer, backend):
    """There are events for three steps, so version 3 stays the newest; its folder is not due yet."""
    config = new_run("late", COLLECTIVE | {"backend": backend}, groups=9)
    process = start_trainer(config)
    wait_for(lambda: [v for v in versions_of(config) if v.version == 3], "version 3")
    first = [version for version in versions_of(config) if version.version == 3]
    assert first[0].uri == ""
    assert (first[0].stored_version, first[0].stored_uri) == (0, "weights/policy/v00000000")
    late = explorer(config, "explorer-late")
    wait_for(lambda: late.follower.held.version == 3, "the newest version")
    assert late.follower.stats["received"] == 0
    again = [version for version in versions_of(config) if version.version == 3 and version.uri]
    assert {version.sha256 for version in again} == {late.follower.held.sha256} == {first[0].sha256}
    fetch(again[-1], config.run.path)
    publish(config, [scored(number, sample, SIZE) for number in range(9, 36) for sample in range(SIZE)])
    process.join(90)
    assert process.exitcode == 0
    wait_for(lambda: late.follower.held.version == STEPS, "last version")
    assert late.follower.stats["received"] > 0


def test_versions_in_bfloat16_are_the_rounded_weights_by_their_own_digest(new_run):
    config = new_run("rounded", {"wire_dtype": "bfloat16"}, steps=2, checkpoint_interval=1)
    train(config)
    config = replace_steps(config, 4)
    train(config)
    versions = versions_of(config)
    assert sorted({version.version for version in versions}) == [0, 1, 2, 3, 4]
    folder = fetch(versions[-1], config.run.path)
    rounded = load_file(folder / "model.safetensors")
    whole = load_file(config.run.path / "checkpoints" / "policy" / "step-00000004" / "model.safetensors")
    assert rounded.keys() == whole.keys()
    assert all(torch.equal(rounded[name], whole[name].bfloat16()) for name in whole)
    assert b'"dtype": "bfloat16"' in (folder / "config.json").read_bytes()
    assert steps_of(config)[-1].digest != versions[-1].sha256


def replace_steps(config: Config, steps: int) -> Config:
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"steps": steps})})


@pytest.mark.parametrize("transport", ["collective", "checkpoint"])
def test_adapters_alone_are_sent_and_the_explorer_holds_what_the_trainer_trained(new_run, explorer, model, transport):
    lora = {"rank": 4, "target_modules": ["q_proj", "down_proj"]}
    merged = new_run("merged", {}, lora=lora)
    train(merged)
    config = new_run("adapters", COLLECTIVE | {"transport": transport, "content": "adapters"}, lora=lora)
    member = explorer(config, "explorer-a")
    points = COLLECTIVE_KILL_POINTS if transport == "collective" else KILL_POINTS
    process = start_trainer(config, kill=points["after the weights are announced"])
    process.join(90)
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(CheckpointError, match=r"weights.content was 'adapters'"):
        write_a_checkpoint_and_go_on_with_models(config)
    train(config)
    wait_for(lambda: member.follower.held.version == STEPS, "last version")
    last = versions_of(config)[-1]
    assert member.follower.held.sha256 == last.sha256
    assert last.size_bytes < versions_of(merged)[-1].size_bytes / 2
    expected = load_file(fetch(versions_of(merged)[-1], merged.run.path) / "model.safetensors")
    held = member.policy._model.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in expected.items())
    folder = fetch(last, config.run.path)
    assert {file.name for file in folder.glob("adapter_*")} == {"adapter_config.json", "adapter_model.safetensors"}
    # PEFT and transformers read a version and a checkpoint as they are.
    for adapters in (folder, config.run.path / "checkpoints" / "policy" / f"step-{STEPS:08d}"):
        loaded = AutoModelForCausalLM.from_pretrained(adapters)
        assert any(".lora_A." in name for name in loaded.state_dict())


def write_a_checkpoint_and_go_on_with_models(config: Config) -> None:
    train(replace_steps(config, 5))
    changed = config.weights.model_copy(update={"content": "model"})
    train(config.model_copy(update={"weights": changed}))
