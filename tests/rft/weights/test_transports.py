"""Tests what both weight transports promise about folders and announcements."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from rft.config import Config
from rft.model_files.weights_file import build_weights_file
from rft.weights.collective_transport import CollectiveTransport
from rft.weights.folder_transport import FolderTransport
from rft.weights.transport import NewVersion, WeightTransport
from rft.weights.version_folders import VersionFolders, fetch
from schemas.events import WeightVersion

EVERY = 3
"""``weights.checkpoint_every``"""


@dataclass
class Log:
    """Stands for the writer and for the distributor: keeps what is announced."""

    announced: list[WeightVersion] = field(default_factory=list)
    closed: list[bool] = field(default_factory=list)

    def send(self, entity: str, event: WeightVersion) -> None:
        assert entity == "weights"
        self.announced.append(event)

    def flush(self) -> None:
        """Everything is acknowledged at once."""

    def publish(self, event: WeightVersion, new: NewVersion) -> None:
        assert event.sha256 == new.weights.sha256
        self.announced.append(event)

    def take_metrics(self) -> dict[str, float]:
        return {"weights_epochs": 1.0}

    def close(self, *, drain: bool) -> None:
        self.closed.append(drain)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate({"run": {"name": "run", "folder": str(tmp_path)}, "policy": {"model": "m"}})


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(params=["checkpoint", "collective"])
def transport(request: pytest.FixtureRequest, config: Config, log: Log) -> WeightTransport:
    folders = VersionFolders(config, {"config.json": b"{}"}, threading.Event())
    if request.param == "checkpoint":
        return FolderTransport(folders, log)
    return CollectiveTransport(folders, log, EVERY)


def new_version(number: int, *, final: bool = False) -> NewVersion:
    weights = build_weights_file({"a": torch.full((4,), float(number))})
    return NewVersion("policy", number, number, weights, final=final)


def test_versions_are_announced_in_order_with_their_digest_and_named_folders_are_there(transport, config, log):
    versions = [new_version(number, final=number == 7) for number in range(8)]
    for version in versions:
        event = transport.publish(version)
        assert event == log.announced[-1]
        if event.uri:
            fetch(event, config.run.path)
    assert [(event.version, event.sha256, event.final) for event in log.announced] == [
        (version.version, version.weights.sha256, version.final) for version in versions
    ]
    with_folder = [event.version for event in log.announced if event.uri]
    expected = range(8) if isinstance(transport, FolderTransport) else (0, 3, 6, 7)
    assert with_folder == list(expected)


def test_a_restored_version_has_a_folder_and_is_announced_unless_folders_already_serve_it(transport, config, log):
    first = transport.restore(new_version(1), None)
    assert log.announced == [first]
    fetch(first, config.run.path)
    again = transport.restore(new_version(1), first)
    fetch(again, config.run.path)
    # A transfer has ended with its trainer, so the collective transport announces the version once more.
    assert len(log.announced) == (1 if isinstance(transport, FolderTransport) else 2)
    assert transport.restore(new_version(2), first) == log.announced[-1]


def test_it_closes_and_measures_without_raising(transport, log):
    assert transport.take_metrics() == ({} if isinstance(transport, FolderTransport) else {"weights_epochs": 1.0})
    transport.close(drain=False)
    assert log.closed == ([] if isinstance(transport, FolderTransport) else [False])
