"""Tests the memory that trainer and explorers share: errors name the cause, and nothing is left behind."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from rft.errors import WeightsError
from rft.weights import shared_memory
from rft.weights.communicator import Communicator, broadcast, connect

BUCKET_BYTES = 1000


@pytest.fixture
def store() -> dist.Store:
    return dist.HashStore()


@pytest.fixture
def empty_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Use a directory for this test alone, because tests in parallel share memory too, and check that it ends empty."""
    monkeypatch.setattr(shared_memory, "directory", lambda: tmp_path)
    yield tmp_path
    assert not list(tmp_path.iterdir())


def group_of(
    store: dist.Store, rank: int, size: int = 2, bucket_bytes: int = BUCKET_BYTES, timeout_s: float = 5
) -> Communicator:
    return connect(
        "g", store, backend="ipc", rank=rank, size=size, bind="", bucket_bytes=bucket_bytes, timeout_s=timeout_s
    )


def together(store: dist.Store, size: int = 2) -> list[Communicator]:
    """Return the ranks of a communicator, built in threads, each with its own mapping of the memory."""
    found: dict[int, Communicator] = {}
    threads = [
        threading.Thread(target=lambda rank=rank: found.setdefault(rank, group_of(store, rank, size)))
        for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return [found[rank] for rank in range(size)]


def send(group: Communicator, buckets: list[torch.Tensor], stall_s: float = 5) -> None:
    broadcast(group, buckets, remaining_s=lambda: 30.0, stall_s=stall_s)


def test_all_ranks_hold_each_bucket_and_the_memory_no_longer_has_a_name(store, empty_afterwards):
    groups = together(store, 3)
    assert not list(empty_afterwards.iterdir()), "named only while ranks join"
    for turn in range(2):
        sent = [
            torch.full((size,), turn * 10 + n, dtype=torch.uint8) for n, size in enumerate((1000, 1000, 999, 1, 1000))
        ]
        held = [[torch.zeros_like(one) for one in sent] for _ in groups[1:]]
        readers = [
            threading.Thread(target=send, args=(group, buckets))
            for group, buckets in zip(groups[1:], held, strict=True)
        ]
        for reader in readers:
            reader.start()
        send(groups[0], sent)
        for reader in readers:
            reader.join(10)
        assert all(torch.equal(one, other) for buckets in held for one, other in zip(sent, buckets, strict=True))


@pytest.mark.usefixtures("empty_afterwards")
def test_a_rank_that_waits_for_one_that_left_breaks_off_at_once_and_others_go_on(store):
    sender, gone, reader = together(store, 3)
    buckets = [torch.zeros(10, dtype=torch.uint8)]
    threads = [threading.Thread(target=send, args=(group, buckets)) for group in (sender, reader, gone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    gone.abort()
    with pytest.raises(WeightsError, match="another member has left it"):
        send(sender, buckets, stall_s=30)
    sender.abort()
    send(reader, buckets)  # the sender had written it before it left
    with pytest.raises(WeightsError, match="another member has left it"):
        send(reader, buckets, stall_s=30)
    with pytest.raises(WeightsError, match="it was aborted"):
        send(gone, [buckets[0], buckets[0]], stall_s=30)


@pytest.mark.usefixtures("empty_afterwards")
def test_a_stall_and_a_bucket_that_is_too_large_break_it_off(store):
    sender, reader = together(store)
    with pytest.raises(WeightsError, match=r"no progress for 0\.[23]"):
        send(reader, [torch.zeros(1, dtype=torch.uint8)], stall_s=0.2)
    with pytest.raises(WeightsError, match="larger than the shared memory's 1000"):
        send(sender, [torch.zeros(BUCKET_BYTES + 1, dtype=torch.uint8)])


@pytest.mark.usefixtures("empty_afterwards")
def test_a_missing_rank_is_waited_for_only_until_the_timeout(store):
    with pytest.raises(WeightsError, match="the ipc communicator of 2 ranks was not built"):
        group_of(store, 0, timeout_s=0.2)


@pytest.mark.usefixtures("empty_afterwards")
def test_the_error_for_too_little_memory_explains_how_to_get_more(store):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(WeightsError, match=r"cannot make 19 MiB of shared memory .*--shm-size.*weights\.bucket_mb"):
            group_of(store, 0, bucket_bytes=10_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_memory_that_is_missing_or_has_another_size_or_an_invalid_name_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "directory", lambda: tmp_path)
    inner = dist.PrefixStore("group/g", store)
    inner.set("memory", "a" * 32)
    with pytest.raises(WeightsError, match=r"cannot open the trainer.*on one host and as one user"):
        group_of(store, 1)
    (tmp_path / f"rft-weights-{'a' * 32}").write_bytes(b"short")
    with pytest.raises(WeightsError, match="does not have the size"):
        group_of(store, 1)
    (tmp_path / "elsewhere").write_bytes(b"x" * (4096 + 2 * BUCKET_BYTES))
    inner.set("memory", "b" * 32)
    os.symlink(tmp_path / "elsewhere", tmp_path / f"rft-weights-{'b' * 32}")
    with pytest.raises(WeightsError, match="cannot open"):
        group_of(store, 1)
    inner.set("memory", "../../etc/passwd")
    with pytest.raises(WeightsError, match="an invalid name"):
        group_of(store, 1)
    monkeypatch.setattr(shared_memory, "directory", lambda: Path("/nowhere"))
    with pytest.raises(WeightsError, match="cannot make shared memory in /nowhere"):
        group_of(store, 0)
