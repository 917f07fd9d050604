"""The hub's real client against a server that answers as the hub does, and does not always."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import HubServer, hub_server
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

MODEL = {
    "README.md": b"# A model",
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 4096,
    "pytorch_model.bin": b"never",
    "modeling_own.py": b"never",
}
PROGRAM = """
import json, sys
from pathlib import Path
from rft.errors import RftError
from rft.hub import client, files
from rft.hub.repository import Repository
repository = Repository(sys.argv[1], sys.argv[2], sys.argv[3])
client.BUSY_S, client.BACKOFF = 2.0, client.Backoff(0.2)
seen = []
try:
    if sys.argv[1] == "model":
        plan = files.plan_model(repository)
        folder = files.fetch(plan, lambda done, total: seen.append((done, total)))
        found = [path.name for path in folder.iterdir()]
    else:
        found = [str(path) for path in files.dataset_files(repository, None, None)]
        folder, plan = "", files.plan_dataset(repository, None, None)
    print(json.dumps({"commit": plan.listing.repository.revision, "files": sorted(found), "seen": seen,
        "folder": str(folder), "size": plan.size}))
except RftError as error:
    print(json.dumps({"error": str(error)}))
"""
CLOSED_PORT = "http://127.0.0.1:9"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        yield server


class Client:
    """Processes that download, with one cache."""

    def __init__(self, hub: HubServer, home: Path) -> None:
        self.hub, self.home = hub, home
        self.stderr = ""

    def __call__(
        self, name: str = "test/tiny", revision: str = "main", kind: str = "model", **environment: str
    ) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, kind, name, revision],
            env=self.hub.environment(self.home, **environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.stderr = done.stderr
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "home")


def test_only_what_is_needed_is_downloaded_once_and_found_offline(hub: HubServer, client: Client) -> None:
    commit = hub.add("models", "test/tiny", MODEL).branches["main"]
    first = client()
    assert first["commit"] == commit
    assert first["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert first["seen"][-1] == [len(MODEL["model.safetensors"])] * 2
    assert {"pytorch_model.bin", "modeling_own.py"}.isdisjoint(hub.downloads())
    before = len(hub.downloads())
    assert client()["size"] == 0
    assert len(hub.downloads()) == before
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": CLOSED_PORT}):
        offline = client(**environment)
        assert (offline["commit"], offline["folder"]) == (commit, first["folder"])
    hub.refuses = 503
    assert client()["commit"] == commit


def test_a_broken_off_download_goes_on_where_it_was(hub: HubServer, client: Client) -> None:
    weights = bytes(range(256)) * (5 * DOWNLOAD_CHUNK_SIZE // 512)
    hub.add("models", "test/tiny", MODEL | {"model.safetensors": weights})
    hub.break_off["model.safetensors"] = 2
    folder = Path(client()["folder"])
    assert (folder / "model.safetensors").read_bytes() == weights
    # The client keeps what it has received in whole chunks: one of the two and a half, then none.
    assert hub.resumed_at == [DOWNLOAD_CHUNK_SIZE, DOWNLOAD_CHUNK_SIZE]


def test_part_of_a_model_is_not_taken_for_the_model_offline(hub: HubServer, client: Client) -> None:
    repository = hub.add("models", "test/tiny", {"config.json": b"{}", "tokenizer.json": b"{}"})
    assert "no model.safetensors" in client()["error"]
    repository.commits[repository.branches["main"]] = dict(MODEL)
    answer = client(HF_HUB_OFFLINE="1")
    assert "hf download test/tiny" in answer["error"]


@pytest.mark.parametrize(
    ("environment", "why"),
    [({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"), ({"HF_ENDPOINT": CLOSED_PORT}, "cannot be reached")],
)
def test_without_a_network_the_error_says_what_to_download(
    client: Client, environment: dict[str, str], why: str
) -> None:
    for kind, command in (
        ("model", "`hf download test/tiny --revision v2`"),
        ("dataset", "`hf download test/tiny --repo-type dataset --revision v2`"),
    ):
        error = client(kind=kind, revision="v2", **environment)["error"]
        assert why in error
        assert command in error
        assert str(client.home) in error


def test_a_wrong_name_is_answered_with_close_names(hub: HubServer, client: Client) -> None:
    hub.add("models", "test/tiny-model", MODEL)
    error = client("test/tiny-mode")["error"]
    assert "there is no folder test/tiny-mode, and" in error
    assert "Names like it: test/tiny-model" in error
    assert "has no revision 'v9'" in client("test/tiny-model", "v9")["error"]


def test_private_and_gated_repositories_name_the_variable_and_no_token(hub: HubServer, client: Client) -> None:
    hub.add("models", "test/private", MODEL).token = "hf_right"
    hub.add("models", "test/gated", MODEL).gated = True
    for name in ("test/private", "test/gated"):
        error = client(name, HF_TOKEN="hf_wrong_token")["error"]
        assert "HF_TOKEN" in error
        assert "hf_wrong_token" not in error + client.stderr
    assert "gated: ask for access on" in error
    assert "model.safetensors" in client("test/private", HF_TOKEN="hf_right")["files"]


def test_a_busy_hub_is_asked_again_and_in_the_end_named(hub: HubServer, client: Client) -> None:
    hub.add("models", "test/tiny", MODEL)
    hub.refusals = [429, 503]
    assert client()["files"]
    hub.refuses = 429
    assert "too many requests (HTTP 429)" in client("test/other")["error"]


def test_a_full_disk_is_named_before_anything_is_downloaded(hub: HubServer, client: Client) -> None:
    hub.add("models", "test/tiny", MODEL | {"model.safetensors": b"x"}).claimed["model.safetensors"] = 10**17
    error = client()["error"]
    assert "needs 100000000.0 GB in" in error
    assert "HF_HOME" in error
    assert "model.safetensors" not in hub.downloads()


def test_a_commit_stays_when_the_branch_moves(hub: HubServer, client: Client) -> None:
    repository = hub.add("models", "test/tiny", MODEL)
    old = client()
    new = repository.push(MODEL | {"config.json": b'{"new": 1}'})
    assert client()["commit"] == new != old["commit"]
    pinned = client(revision=old["commit"])
    assert pinned["folder"] == old["folder"]
    assert (Path(pinned["folder"]) / "config.json").read_bytes() == b"{}"


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def test_only_the_split_of_a_dataset_is_downloaded(hub: HubServer, client: Client) -> None:
    card = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: x/part-*\n---\n"
    files = {
        "README.md": card,
        "x/part-0.parquet": parquet([{"question": "1+1", "answer": "2"}]),
        "x/part-1.parquet": parquet([{"question": "1+2", "answer": "3"}]),
        "x/rest.parquet": b"never",
    }
    repository = hub.add("datasets", "test/sums", files)
    repository.card = {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "x/part-*"}]}]}
    found = client("test/sums", kind="dataset")
    assert [Path(file).name for file in found["files"]] == ["part-0.parquet", "part-1.parquet"]
    assert "rest.parquet" not in hub.downloads()
    assert client("test/sums", kind="dataset", HF_HUB_OFFLINE="1")["files"] == found["files"]
