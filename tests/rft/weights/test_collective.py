"""Tests transfers between real processes: the bytes are right or refused, and no transfer gets stuck."""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest
import torch

from rft.errors import WeightsError
from rft.weights.manifest import Manifest, pack_checksums, pack_layout
from rft.weights.receiver import Receiver
from rft.weights.rendezvous import Rendezvous
from rft.weights.sender import Sender, TransferOutcome
from rft.weights.transfer_spec import receiver_name
from tests.rft.weights.receivers import ReceiverProcess, describe, digest, transfer_spec, weights_of

NAMES = ("a", "b", "c")


@pytest.fixture(params=["gloo", "ipc"])
def sender(request: pytest.FixtureRequest) -> Iterator[Sender]:
    one = Sender("127.0.0.1", 0, request.param)
    yield one
    one.abort()


@pytest.fixture
def three() -> Iterator[list[ReceiverProcess]]:
    processes = [ReceiverProcess(name) for name in NAMES]
    yield processes
    for process in processes:
        process.close()


def send(
    sender: Sender,
    weights: bytes,
    epoch: int,
    names: tuple[str, ...] = NAMES,
    deadline_s: float = 10,
    stall_s: float = 2,
) -> tuple[TransferOutcome, float]:
    began = time.monotonic()
    outcome = sender.send(
        weights,
        describe(weights),
        epoch=epoch,
        receivers=[receiver_name(name, 0) for name in names],
        deadline_s=deadline_s,
        stall_s=stall_s,
    )
    return outcome, time.monotonic() - began


def whole(*names: str) -> frozenset[str]:
    return frozenset(receiver_name(name, 0) for name in names)


def test_every_receiver_holds_the_exact_bytes_staged_or_streamed_and_the_communicator_is_reused(sender, three):
    for epoch, staged in enumerate((True, False, True)):
        weights = weights_of(epoch)
        for process in three:
            process.receive(transfer_spec(sender, describe(weights), epoch, process.name), staged=staged)
        outcome, _ = send(sender, weights, epoch)
        assert outcome.reached == whole(*NAMES), outcome
        assert [process.result() for process in three] == [(digest(weights), "")] * 3
        assert outcome.built == (epoch == 0)


def test_a_receiver_killed_in_mid_transfer_costs_less_than_a_stall_and_the_next_transfer_leaves_it_out(sender, three):
    weights = weights_of(1, elements=5_000_000)
    manifest = describe(weights)
    for process in three:
        process.receive(
            transfer_spec(sender, manifest, 0, process.name), die_at_bucket=20 if process.name == "b" else -1
        )
    outcome, seconds = send(sender, weights, 0)
    assert receiver_name("b", 0) in outcome.unresponsive
    assert seconds < 10
    survivors = [process for process in three if process.name != "b"]
    results = [process.result() for process in survivors]
    assert all(result == (digest(weights), "") or "broke off" in result[1] for result in results), results
    for process in survivors:
        process.receive(transfer_spec(sender, manifest, 1, process.name))
    outcome, _ = send(sender, weights, 1, ("a", "c"))
    assert outcome.reached == whole("a", "c")
    assert outcome.built
    assert [process.result() for process in survivors] == [(digest(weights), "")] * 2


def test_a_stopped_receiver_delays_no_other_past_the_deadline_and_comes_back_afterwards(sender, three):
    weights = weights_of(2, elements=5_000_000)
    manifest = describe(weights)
    three[1].signal(signal.SIGSTOP)
    for process in three:
        process.receive(transfer_spec(sender, manifest, 0, process.name))
    outcome, seconds = send(sender, weights, 0, deadline_s=4, stall_s=1)
    assert seconds < 4.5
    assert (outcome.reached, outcome.unresponsive) == (whole("a", "c"), whole("b"))
    assert [process.result()[1] for process in (three[0], three[2])] == ["", ""]
    three[1].signal(signal.SIGCONT)
    assert "began without this member" in three[1].result()[1]
    for process in three:
        process.receive(transfer_spec(sender, manifest, 1, process.name))
    outcome, _ = send(sender, weights, 1)
    assert outcome.reached == whole(*NAMES)
    assert [process.result() for process in three] == [(digest(weights), "")] * 3


def test_a_receiver_stopped_within_a_transfer_ends_it_after_the_stall_time(sender, three):
    """Two 80 MB transfers share a communicator, so the second finds the stopped member in the middle of the stream."""
    weights = weights_of(3, elements=20_000_000)
    manifest = describe(weights)
    for process in three:
        process.receive(transfer_spec(sender, manifest, 0, process.name, deadline_s=30, stall_s=5))
    assert send(sender, weights, 0, deadline_s=30, stall_s=5)[0].reached == whole(*NAMES)
    assert [process.result()[1] for process in three] == [""] * 3
    stopper = threading.Thread(target=lambda: (time.sleep(0.05), three[1].signal(signal.SIGSTOP)))
    for process in three:
        process.receive(transfer_spec(sender, manifest, 1, process.name, deadline_s=8, stall_s=1))
    stopper.start()
    outcome, seconds = send(sender, weights, 1, deadline_s=8, stall_s=1)
    stopper.join()
    assert seconds < 8.5
    assert receiver_name("b", 0) in outcome.unresponsive
    for process in (three[0], three[2]):
        held, error = process.result()
        assert held == digest(weights) or error
    three[1].signal(signal.SIGCONT)
    three[1].result()
    for process in three:
        process.receive(transfer_spec(sender, manifest, 2, process.name))
    assert send(sender, weights, 2)[0].reached == whole(*NAMES)
    assert [process.result() for process in three] == [(digest(weights), "")] * 3


def test_an_aborted_sender_and_receiver_end_at_once(sender):
    weights = weights_of(4)
    receiver = Receiver()
    errors: list[str] = []

    def receive() -> None:
        try:
            dict(receiver.receive(transfer_spec(sender, describe(weights), 0, "a", deadline_s=30)))
        except WeightsError as error:
            errors.append(str(error))

    waiting = threading.Thread(target=lambda: send(sender, weights, 0, ("a", "b"), deadline_s=30, stall_s=30))
    thread = threading.Thread(target=receive)
    began = time.monotonic()
    waiting.start()
    thread.start()
    time.sleep(0.2)
    sender.abort()
    receiver.abort()
    waiting.join(10)
    thread.join(10)
    assert not waiting.is_alive()
    assert not thread.is_alive()
    assert time.monotonic() - began < 10
    assert errors


@pytest.mark.parametrize(
    ("verify", "staged", "message"),
    [
        ("crc32c", True, "bucket 0 does not have the checksum"),
        ("crc32c", False, "bucket 0 does not have the checksum"),
        ("sha256", True, "have sha256"),
    ],
)
def test_other_bytes_than_announced_are_refused_and_the_others_are_not_disturbed(
    sender, three, verify, message, staged
):
    sent, announced = weights_of(5), weights_of(6)
    deceived, honest = three[0], three[1:]
    deceived.receive(transfer_spec(sender, describe(announced), 0, deceived.name, verify=verify), staged=staged)
    for process in honest:
        process.receive(transfer_spec(sender, describe(sent), 0, process.name, verify=verify), staged=staged)
    outcome, _ = send(sender, sent, 0)
    held, error = deceived.result()
    assert held == ""
    assert "not those that were announced" in error
    assert message in error
    assert [process.result() for process in honest] == [(digest(sent), "")] * 2
    assert outcome.reached == whole("b", "c")
    assert set(outcome.failed) == whole("a")


def test_a_manifest_that_was_tampered_with_is_refused(sender):
    good = describe(weights_of(7))
    spec = transfer_spec(sender, good, 0, "a")
    for changed, message in [
        (replace(spec, layout=pack_layout(good.header.replace(b'"big"', b'"bog"'))[:-9]), "manifest"),
        (replace(spec, layout=b"junk"), "cannot be unpacked"),
        (replace(spec, layout=pack_layout(good.header.replace(b"[100000]", b"[999999]"))), "does not fit its shape"),
        (replace(spec, checksums=pack_checksums(good.checksums[:-1])), "checksums"),
        (replace(spec, bucket_bytes=0), "buckets of 0"),
        (replace(spec, rendezvous="nowhere"), "not a rendezvous address"),
    ]:
        with pytest.raises(WeightsError, match=message):
            dict(Receiver().receive(changed))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        Manifest.describe(b"rubbish", "", 10)


def test_a_renamed_tensor_does_not_have_the_announced_digest(sender):
    weights = weights_of(8)
    good = describe(weights)
    spec = replace(transfer_spec(sender, good, 0, "a"), layout=pack_layout(good.header.replace(b'"big"', b'"bog"')))
    thread = threading.Thread(target=lambda: send(sender, weights, 0, ("a",)))
    thread.start()
    with pytest.raises(WeightsError, match="sha256"):
        dict(Receiver().receive(spec))
    thread.join()


def go_to(address: str) -> None:
    """Receive from a trainer at ``address``."""
    trainer = type("Trainer", (), {"address": address, "backend": "gloo"})()
    dict(Receiver().receive(transfer_spec(trainer, describe(weights_of(9)), 0, "a", deadline_s=30)))


def test_a_missing_trainer_is_noticed_at_once():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}/abc"
    began = time.monotonic()
    with pytest.raises(WeightsError, match="cannot be reached"):
        go_to(address)
    assert time.monotonic() - began < 5


def test_a_trainer_that_dies_while_a_receiver_connects_is_noticed_at_once():
    """By itself torch would try for up to three times its limit."""
    listener = socket.create_server(("127.0.0.1", 0))

    def die_at_the_second() -> None:
        listener.accept()[0].close()
        connection, _ = listener.accept()
        listener.close()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    dying = threading.Thread(target=die_at_the_second)
    dying.start()
    began = time.monotonic()
    with pytest.raises(WeightsError, match="cannot be reached"):
        go_to(f"127.0.0.1:{listener.getsockname()[1]}/abc")
    assert time.monotonic() - began < 4
    dying.join()


def test_the_rendezvous_listens_on_loopback_only():
    rendezvous = Rendezvous("127.0.0.1", 0)
    listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [c.ip for c in listening if c.port == rendezvous.port] == ["127.0.0.1"]


def test_the_default_process_group_is_not_touched(sender, three):
    weights = weights_of(10)
    three[0].receive(transfer_spec(sender, describe(weights), 0, "a"))
    send(sender, weights, 0, ("a",))
    assert three[0].result() == (digest(weights), "")
    assert not torch.distributed.is_initialized()
