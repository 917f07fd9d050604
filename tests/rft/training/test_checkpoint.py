"""Checkpoints are whole or absent, whatever happens while one is written."""

import os
import random
import resource
import shutil
import signal
import time

import pytest
import torch

from rft.config import TrainerConfig
from rft.errors import CheckpointError
from rft.model_files.atomic_folder import remove_leftovers
from rft.training import checkpoint as module
from rft.training.checkpoint import (
    CheckpointState,
    checkpoints_root,
    newest_checkpoint,
    read_checkpoint,
    restore_rng,
    rng_states,
    write_checkpoint,
)


def state(step):
    return CheckpointState("policy", step, step, step, f"digest {step}", "initial", (0, 3 * step), {"step": step})


def write(path, step, *, kilobytes=4, keep=2, keep_every=0):
    return write_checkpoint(
        path,
        state(step),
        weights={"model.safetensors": bytes([step % 256]) * (kilobytes * 1024)},
        companions={"config.json": b"{}"},
        optimizer={"layer/exp_avg": torch.full((kilobytes * 256,), float(step))},
        keep=keep,
        keep_every=keep_every,
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    folder = write(tmp_path, 5)
    found = newest_checkpoint(tmp_path, "policy")
    assert found.folder == folder
    assert found.state.last_record == (0, 15)
    assert found.state.progress == {"step": 5}
    assert torch.equal(found.optimizer["layer/exp_avg"], torch.full((1024,), 5.0))
    assert (folder / "config.json").read_bytes() == b"{}"


def test_random_numbers_go_on_where_they_were(tmp_path):
    write(tmp_path, 1)
    expected = torch.rand(4)
    restore_rng(newest_checkpoint(tmp_path, "policy").rng)
    assert torch.equal(torch.rand(4), expected)
    assert "cpu" in rng_states()


def test_the_newest_is_found_and_only_the_configured_number_stays(tmp_path):
    for step in (1, 9, 10, 100):
        write(tmp_path, step, keep=2)
    assert newest_checkpoint(tmp_path, "policy").state.step == 100
    assert sorted(os.listdir(checkpoints_root(tmp_path, "policy"))) == ["step-00000010", "step-00000100"]


def test_every_kth_checkpoint_stays_for_ever(tmp_path):
    for step in range(5, 65, 5):
        write(tmp_path, step, keep=2, keep_every=20)
    kept = sorted(int(name.removeprefix("step-")) for name in os.listdir(checkpoints_root(tmp_path, "policy")))
    assert kept == [20, 40, 55, 60]


def test_keep_every_that_no_checkpoint_would_meet_is_refused():
    with pytest.raises(ValueError, match="multiple of checkpoint_interval"):
        TrainerConfig(checkpoint_interval=50, keep_every=75)
    assert TrainerConfig(checkpoint_interval=50, keep_every=100).keep_every == 100


def test_no_checkpoint_is_no_error(tmp_path):
    assert newest_checkpoint(tmp_path, "policy") is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "state"])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "trainer/optimizer.safetensors"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, file, damage, caplog):
    write(tmp_path, 1)
    path = write(tmp_path, 2) / file
    if damage == "flip":
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "delete":
        path.unlink()
    else:
        (path.parents[len(file.split("/")) - 1] / "trainer" / "state.json").write_text("{")
    assert newest_checkpoint(tmp_path, "policy").state.step == 1
    assert "step-00000002" in caplog.text
    shutil.rmtree(checkpoints_root(tmp_path, "policy") / "step-00000001")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        newest_checkpoint(tmp_path, "policy")


def test_killed_at_any_point_of_writing_a_checkpoint_is_whole_or_absent(tmp_path):
    random.seed(0)
    root = checkpoints_root(tmp_path, "policy")
    newest = 0
    for _ in range(25):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)  # others that torch had before are not in this process, and it would wait for them
            step = newest
            while True:
                step += 1
                write(tmp_path, step, kilobytes=256, keep=3)
        time.sleep(random.uniform(0.001, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        steps = [read_checkpoint(folder).state.step for folder in root.glob("step-*")]
        assert max(steps, default=0) >= newest
        newest = max(steps, default=0)
    assert newest > 5
    remove_leftovers(root)
    assert all(name.startswith("step-") for name in os.listdir(root))


def test_a_disk_that_fills_up_leaves_nothing_and_is_named(tmp_path):
    write(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"checkpoint of step 2 .*disk / .*MiB free.*needed"):
            write(tmp_path, 2, kilobytes=128)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(checkpoints_root(tmp_path, "policy")) == ["step-00000001"]
    assert newest_checkpoint(tmp_path, "policy").state.step == 1
    write(tmp_path, 2, kilobytes=128)
    assert newest_checkpoint(tmp_path, "policy").state.step == 2


def test_a_format_from_the_future_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORMAT", 2)
    folder = write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2"):
        read_checkpoint(folder)
