"""Weight versions: announced with their digest, fetched only if they are what was announced."""

import hashlib
import json
import os
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rft.errors import WeightsError
from rft.model_files.model_folder import companion_files
from rft.model_files.weights_file import WeightsFile
from rft.weights.transport import NewVersion
from rft.weights.version_folders import fetch, prune, version_folder, write_version


def put(path, version, content=b"weights", *, final=False, keep_versions=3):
    weights = WeightsFile(memoryview(content), hashlib.sha256(content).hexdigest())
    new = NewVersion("policy", version, version, weights, final=final)
    return write_version(new, {"config.json": b"{}"}, path, keep_versions=keep_versions)


def test_what_is_published_can_be_fetched(tmp_path):
    announcement = put(tmp_path, 7, b"new weights", final=True)
    folder = fetch(announcement, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == b"new weights"
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (announcement.uri, announcement.size_bytes, announcement.final) == ("weights/policy/v00000007", 11, True)


def test_an_absolute_uri_is_taken_as_it_is(tmp_path):
    announcement = put(tmp_path / "run", 0)
    moved = type(announcement)(
        **{name: getattr(announcement, name) for name in announcement.__slots__}
        | {"uri": str(tmp_path / "run" / announcement.uri)}
    )
    assert fetch(moved, tmp_path / "elsewhere") == tmp_path / "run" / announcement.uri


def test_weights_that_are_not_what_was_announced_are_refused(tmp_path):
    announcement = put(tmp_path, 1)
    (version_folder(tmp_path, "policy", 1) / "model.safetensors").write_bytes(b"weightz")
    with pytest.raises(WeightsError, match=r"version 1 of policy .* was announced"):
        fetch(announcement, tmp_path)


def test_only_the_newest_are_kept_and_a_fetch_of_an_older_one_says_so(tmp_path):
    announcements = [put(tmp_path, version, keep_versions=2) for version in range(5)]
    assert sorted(os.listdir(tmp_path / "weights" / "policy")) == ["v00000003", "v00000004"]
    with pytest.raises(WeightsError, match="keep_versions"):
        fetch(announcements[0], tmp_path)


def test_a_version_published_again_is_replaced_only_if_it_differs(tmp_path):
    put(tmp_path, 1)
    folder = version_folder(tmp_path, "policy", 1)
    before = folder.stat().st_ino
    put(tmp_path, 1)
    assert folder.stat().st_ino == before
    changed = put(tmp_path, 1, b"other")
    assert fetch(changed, tmp_path) == folder
    assert os.listdir(tmp_path / "weights" / "policy") == ["v00000001"]


def test_a_disk_that_fills_up_leaves_nothing_and_is_named(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        with pytest.raises(WeightsError, match=r"weight version 1 .*disk / .*MiB free"):
            put(tmp_path, 1, bytes(128 * 1024))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path / "weights" / "policy") == []


def test_killed_while_publishing_a_version_is_whole_or_absent(tmp_path):
    for attempt in range(12):
        child = os.fork()
        if child == 0:
            version = 0
            while True:
                put(tmp_path, version, bytes([version % 256]) * 2**20)
                version += 1
        time.sleep(0.004 * (attempt + 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for folder in (tmp_path / "weights" / "policy").glob("v*"):
            expected = bytes([int(folder.name[1:]) % 256]) * 2**20
            assert (folder / "model.safetensors").read_bytes() == expected
            assert (folder / "config.json").exists()


def test_companions_are_configuration_and_tokenizer_but_no_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "dtype": "bfloat16", "torch_dtype": "bfloat16"}')
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors", "model.safetensors.index.json", "a.bin"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "trainer").mkdir()
    files = companion_files(tmp_path)
    assert sorted(files) == ["chat_template.jinja", "config.json", "tokenizer.json"]
    assert json.loads(files["config.json"]) == {"model_type": "qwen3", "dtype": "float32"}


def test_two_threads_may_delete_the_same_old_versions(tmp_path):
    """The trainer's writes a version while its distributor's writes the one before for members that are behind."""
    for version in range(400):
        version_folder(tmp_path, "policy", version).mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(prune, tmp_path, "policy", newest=399, keep_versions=2) for _ in range(4)]:
            done.result()
    assert sorted(os.listdir(tmp_path / "weights" / "policy")) == ["v00000398", "v00000399"]
