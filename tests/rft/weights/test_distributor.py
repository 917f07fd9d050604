"""Members are read while a folder is written that takes longer than the time after which a member counts as gone."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import torch

from rft.config import Config
from rft.log.reader import EventReader
from rft.log.writer import EventWriter
from rft.model_files.weights_file import build_weights_file
from rft.weights import distributor
from rft.weights.distributor import Distributor
from rft.weights.transport import COLLECTIVE, NewVersion
from schemas.events import Member, WeightVersion

WEIGHTS = build_weights_file({"a": torch.zeros(4)})
NEW = NewVersion("policy", 1, 1, WEIGHTS, final=False)
EVENT = WeightVersion(
    model="policy", version=1, step=1, transport=COLLECTIVE, uri="", sha256=WEIGHTS.sha256, size_bytes=4, final=False,
    created_at=0,
)  # fmt: skip
BEHIND = Member(
    member_id="explorer-0", role="explorer", engine="transformers", state="here", version=0, sha256="", address="h:1",
    heartbeat_at=0, stats={},
)  # fmt: skip


class SlowFolders:
    """Writes a folder when the test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self._error = error

    def write(self, new: NewVersion) -> WeightVersion:
        self.begun.set()
        assert self.may_end.wait(30)
        if self._error is not None:
            raise self._error
        return replace(EVENT, uri="v1")


@pytest.fixture
def heartbeats(log_config: Config):
    """A member that is behind and announces itself all the time."""
    stop = threading.Event()

    def announce() -> None:
        with EventWriter(log_config, "explorer-0") as writer:
            while not stop.wait(0.2):
                writer.send("members", BEHIND)

    thread = threading.Thread(target=announce)
    thread.start()
    yield
    stop.set()
    thread.join()


def open_distributor(config: Config, writer: EventWriter, folders: SlowFolders) -> Distributor:
    return Distributor(config, writer, folders, None, client_id="trainer")


def test_members_are_heard_while_a_folder_is_written(log_config, heartbeats, monkeypatch):
    monkeypatch.setattr(distributor, "MEMBER_TIMEOUT_S", 1.5)
    folders = SlowFolders()
    with EventWriter(log_config, "trainer") as writer:
        one = open_distributor(log_config, writer, folders)
        one.publish(EVENT, NEW)
        assert folders.begun.wait(20)
        ends_at = time.monotonic() + 4
        while time.monotonic() < ends_at:
            assert list(one._state.members) == ["explorer-0"]
            time.sleep(0.05)
        folders.may_end.set()
        one.close(drain=True)
    assert one._error is None
    with EventReader(log_config, "test", ["weights"]) as reader:
        versions = [event.record(WeightVersion) for event in reader.poll(5)]
    assert versions[-1].stored_uri == "v1"


def test_a_write_that_fails_in_an_unforeseen_way_reaches_the_trainer(log_config, heartbeats):
    folders = SlowFolders(ZeroDivisionError("a bug"))
    folders.may_end.set()
    with EventWriter(log_config, "trainer") as writer:
        one = open_distributor(log_config, writer, folders)
        one.publish(EVENT, NEW)
        assert folders.begun.wait(20)
        began = time.monotonic()
        one.close(drain=True)
        assert time.monotonic() - began < 20
    assert isinstance(one._error, ZeroDivisionError)
