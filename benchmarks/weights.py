"""Measures how fast weights are transferred, compared with a bare broadcast of the same bytes and a file copy.

python benchmarks/weights.py [--parameters 1e6 135e6 500e6] [--rounds 5] [--receivers 1] [--dtype float32]

For each size and in each round, the sender (this process) and the receivers (processes of their own) take turns at: a
bare ``torch.distributed`` broadcast of one tensor, the collective transport over gloo with CRC-32C, the same with
sha256, the same through shared memory (``ipc``), a file copy, and the checkpoint transport (write a folder, verify it,
read its tensors). Results are medians over the rounds. Ratios are medians of each round's ratio to its bare broadcast.
The first transfer builds the communicator and is not counted.

Generation pauses for the copy into the model's parameters. Training pauses for the snapshot (the safetensors file in
host memory with its sha256, which the redo log needs anyway) and the checksums. Each process needs memory for two
copies of the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save

from rft.model_files.tensors import read_weights
from rft.model_files.weights_file import build_weights_file
from rft.weights.communicator import connect
from rft.weights.manifest import Manifest, pack_checksums, pack_layout
from rft.weights.receiver import Receiver
from rft.weights.rendezvous import Rendezvous, reach
from rft.weights.sender import Sender
from rft.weights.transfer_spec import TransferSpec, receiver_name
from rft.weights.transport import NewVersion
from rft.weights.version_folders import fetch, write_version

BUCKET_MB = 16
LIMIT_S = 300.0
BACKENDS = ("gloo", "ipc")
PAUSES = ("pause of generation", "snapshot", "saved", "describe")


BARE: dict[str, Any] = {"backend": "gloo", "bucket_bytes": BUCKET_MB * 2**20, "timeout_s": 60}


def tensors_of(parameters: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return tensors like those of a decoder: layers of equal matrices, none larger than 64 Mi elements."""
    width = min(2048, max(64, int((parameters / 12) ** 0.5)))
    count = max(1, parameters // (width * width))
    return {f"layers.{n}.weight": torch.full((width, width), 0.01 * n, dtype=dtype) for n in range(count)}


@dataclass
class Measured:
    """Seconds of each round."""

    size: int
    seconds: dict[str, list[float]]

    def rate(self, name: str) -> float:
        return self.size / statistics.median(self.seconds[name]) / 1e6

    def ratio(self, name: str) -> float:
        pairs = zip(self.seconds[name], self.seconds["bare broadcast"], strict=True)
        return statistics.median(bare / one for one, bare in pairs)


def receive(pipe: Connection, index: int) -> None:
    """Run one receiver: it carries out each request and answers with the seconds that it took."""
    torch.set_num_threads(1)
    receivers, group, model = {backend: Receiver() for backend in BACKENDS}, None, {}
    while True:
        what, argument = pipe.recv()
        began = time.perf_counter()
        answer: Any = None
        if what == "end":
            return
        if what == "join":
            host, port, size = argument
            store = reach(host, port, LIMIT_S)
            group = connect("bare", store, rank=1 + index, size=size, bind=host, **BARE)
        if what == "bare":
            data = torch.empty(argument, dtype=torch.uint8)
            began = time.perf_counter()
            bare_broadcast(group, data)
            del data
        if what == "collective":
            spec = TransferSpec.from_json(argument)
            tensors = dict(receivers[spec.backend].receive(spec))
            model, answer = load(model, tensors)
            del tensors
        if what == "checkpoint":
            announced, path = argument
            tensors = read_weights(fetch(announced, path))
            model, answer = load(model, tensors)
            del tensors
        pipe.send((time.perf_counter() - began, answer))


def load(model: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], float]:
    """Copy ``tensors`` into the parameters of a generating model. Returns the model and the seconds of the copy."""
    if not model:
        model = {name: tensor.clone() for name, tensor in tensors.items()}
    began = time.perf_counter()
    for name, tensor in tensors.items():
        model[name].copy_(tensor)
    return model, time.perf_counter() - began


def bare_broadcast(group: Any, data: torch.Tensor) -> None:
    options = dist.BroadcastOptions()
    options.rootRank = options.rootTensor = 0
    options.timeout = timedelta(seconds=LIMIT_S)
    group.process_group.broadcast([data], options).wait()


class Receivers:
    """The processes of the receivers."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(count)]
        self.pipes = [here for here, _ in pairs]
        self.processes = [
            context.Process(target=receive, args=(there, index)) for index, (_, there) in enumerate(pairs)
        ]
        for process in self.processes:
            process.start()

    def request_all(
        self, what: str, arguments: list[Any], meanwhile: Callable[[], Any] = lambda: None
    ) -> tuple[float, float]:
        """Send a request to all receivers.

        Returns the seconds until all were done, and the most seconds that one of them measured itself.
        """
        began = time.perf_counter()
        for pipe, argument in zip(self.pipes, arguments, strict=True):
            pipe.send((what, argument))
        meanwhile()
        answers = [pipe.recv() for pipe in self.pipes]
        return time.perf_counter() - began, max(answer or 0.0 for _, answer in answers)

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.send(("end", None))
        for process in self.processes:
            process.join()


def measure(parameters: int, rounds: int, receivers: Receivers, dtype: torch.dtype, folder: Path) -> Measured:
    tensors = tensors_of(parameters, dtype)
    began = time.perf_counter()
    digest = hashlib.sha256(save(tensors, {"format": "pt"})).hexdigest()
    saved = time.perf_counter() - began
    began = time.perf_counter()
    made = build_weights_file(tensors)
    snapshot = time.perf_counter() - began
    assert made.sha256 == digest
    weights = made.data
    del tensors
    began = time.perf_counter()
    manifest = Manifest.describe(weights, digest, BUCKET_MB * 2**20)
    describe = time.perf_counter() - began
    size, count = len(weights), len(receivers.pipes)
    receivers.request_all("hello", [None] * count)
    rendezvous = Rendezvous("127.0.0.1", 0)
    joining: list[Any] = []
    receivers.request_all(
        "join",
        [("127.0.0.1", rendezvous.port, 1 + count)] * count,
        lambda: joining.append(connect("bare", rendezvous.store, rank=0, size=1 + count, bind="127.0.0.1", **BARE)),
    )
    (group,) = joining
    senders = {backend: Sender("127.0.0.1", 0, backend) for backend in BACKENDS}
    warnings.filterwarnings("ignore", "The given buffer is not writable")  # the root of a broadcast only reads it
    data = torch.frombuffer(weights, dtype=torch.uint8)
    seconds: dict[str, list[float]] = {}
    epoch = 0

    def collective(backend: str, verify: str) -> tuple[float, float]:
        nonlocal epoch
        epoch += 1
        sender = senders[backend]
        names = [receiver_name(f"r{n}", 0) for n in range(count)]
        specs = [
            TransferSpec(sender.address, epoch, name, backend, "127.0.0.1", pack_layout(manifest.header),
                      pack_checksums(manifest.checksums), manifest.bucket_bytes, digest, verify, LIMIT_S, 60.0)
            for name in names
        ]  # fmt: skip
        outcomes: list[Any] = []

        def send() -> None:
            outcomes.append(
                sender.send(weights, manifest, epoch=epoch, receivers=names, deadline_s=LIMIT_S, stall_s=60.0)
            )

        _, pause = receivers.request_all("collective", [spec.to_json() for spec in specs], send)
        (outcome,) = outcomes
        assert len(outcome.reached) == count, outcome
        return outcome.send_s, pause

    for backend in BACKENDS:
        collective(backend, "crc32c")
    for number in range(1, rounds + 1):
        times: dict[str, float] = {}
        times["bare broadcast"], _ = receivers.request_all("bare", [size] * count, lambda: bare_broadcast(group, data))
        times["collective, crc32c"], pause = collective("gloo", "crc32c")
        times["collective, sha256"], _ = collective("gloo", "sha256")
        times["ipc, crc32c"], _ = collective("ipc", "crc32c")
        began = time.perf_counter()
        path = folder / "copy"
        path.write_bytes(weights)
        shutil.copyfile(path, folder / "copied")
        times["file write and copy"] = time.perf_counter() - began
        began = time.perf_counter()
        event = write_version(NewVersion("m", number, number, made), {}, folder, keep_versions=2)
        receivers.request_all("checkpoint", [(event, folder)] * count)
        times["checkpoint"] = time.perf_counter() - began
        times |= {"pause of generation": pause, "snapshot": snapshot, "saved": saved, "describe": describe}
        for name, value in times.items():
            seconds.setdefault(name, []).append(value)
    for sender in senders.values():
        sender.abort()
    group.abort()
    return Measured(size, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--parameters", type=float, nargs="+", default=[1e6, 135e6, 500e6])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--receivers", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.receivers} receivers, {options.dtype}, buckets of {BUCKET_MB} MiB, {options.rounds} rounds\n")
    print("| parameters | what | MB/s | of the bare broadcast |")
    print("| --- | --- | --- | --- |")
    notes = []
    for parameters in options.parameters:
        with tempfile.TemporaryDirectory() as folder:
            receivers = Receivers(options.receivers)
            found = measure(int(parameters), options.rounds, receivers, getattr(torch, options.dtype), Path(folder))
            receivers.end()
        for name in (n for n in found.seconds if n not in PAUSES):
            print(f"| {parameters / 1e6:,.0f} M | {name} | {found.rate(name):,.0f} | {found.ratio(name):.2f} |")
        pause, snapshot, saved, describe = (statistics.median(found.seconds[name]) for name in PAUSES)
        notes.append(
            f"{parameters / 1e6:,.0f} M: generation pauses {pause:.3f} s; training pauses {snapshot:.3f} s for the "
            f"snapshot with its sha256 (safetensors' save, then sha256: {saved:.3f} s), {describe:.3f} s for checksums"
        )
        sys.stdout.flush()
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
