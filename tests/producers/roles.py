"""Runs roles as processes on a log that the test writes and reads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from rft.config import Config
from rft.config_toml import to_toml
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.writer import EventWriter
from rft.model_files.model_folder import companion_files
from rft.model_files.weights_file import WeightsFile
from rft.weights.transport import NewVersion
from rft.weights.version_folders import write_version
from schemas.events import Task

RFT = Path(sys.executable).with_name("rft")


def _inherited_paths() -> list[str]:
    """Return the folders from which this process imports the code under test, if they are set."""
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


class RoleProcess:
    """A process ``rft <role> CONFIG``, killed at the end of the ``with`` block if it still runs."""

    def __init__(self, role: str, config: Config, *, name: str = "") -> None:
        folder = config.run.path
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config.toml"
        path.write_text(to_toml(config.model_dump(mode="json", exclude_none=True)))
        self.log_path = folder / f"{name or role}.log"
        with self.log_path.open("wb") as output:
            self.process = subprocess.Popen(
                [RFT, role, path],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *_inherited_paths()])},
            )

    def __enter__(self) -> RoleProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        if kind:
            print(f"--- {self.log_path.name}\n{self.log_path.read_text()}", file=sys.stderr)

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        """Wait until the role's log contains ``text``."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log_path.read_text():
            assert self.process.poll() is None, "the role has ended"
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {text!r}"
            time.sleep(0.1)

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 30) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and the seconds that the end took."""
        began = time.monotonic()
        self.process.terminate()
        return self.process.wait(timeout_s), time.monotonic() - began


class Log:
    """The events of some topics so far, decoded and in order of arrival."""

    def __init__(self, config: Config, *entities: str) -> None:
        self._reader = EventReader(config, "test-reader", entities)
        self._seen: dict[str, list[Any]] = {entity: [] for entity in entities}

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, entity: str, wait_s: float = 0.2) -> list[Any]:
        """Return all records of ``entity`` that are there now."""
        for event in self._reader.poll(wait_s, 5000):
            self._seen[event.entity].append(event.record())
        return self._seen[entity]

    def raw(self, entity: str) -> list[Event]:
        """Return the events of ``entity`` undecoded; for malformed ones."""
        ends = self._reader.end_offsets()
        events: list[Event] = []
        while not self._reader.caught_up(ends):
            events += [event for event in self._reader.poll(0.5) if event.entity == entity]
        return events

    def wait(self, entity: str, enough: Callable[[list[Any]], bool], timeout_s: float = 60) -> list[Any]:
        """Return the records of ``entity`` as soon as they are ``enough``."""
        deadline = time.monotonic() + timeout_s
        while not enough(found := self.read(entity)):
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {entity}; {len(found)} came"
        return found


def announce(config: Config, writer: EventWriter, model: Path, version: int, *, final: bool = False) -> None:
    """Publish the weights in ``model`` as ``version``, as a trainer does."""
    content = (model / "model.safetensors").read_bytes()
    weights = WeightsFile(memoryview(content), hashlib.sha256(content).hexdigest())
    new = NewVersion(config.trainer.model_key, version, version, weights, final=final)
    event = write_version(new, companion_files(model), config.run.path, keep_versions=4)
    writer.send("weights", event)
    writer.flush()


def task(number: int, *, samples: int = 2, min_version: int = 0, mood: str | None = None, spare: int = 0) -> Task:
    group_id, metadata = f"train-{number:08d}", json.dumps({"mood": mood} if mood else {})
    return Task(
        group_id, number, "train", "words", "abc>", "cba", samples, 8, 1.0, 1.0, number, min_version, 0, metadata, spare
    )


def issue(writer: EventWriter, tasks: Iterable[Task]) -> set[str]:
    """Publish tasks and return the ids of the experiences that must result."""
    ids = set()
    for one in tasks:
        writer.send("tasks", one)
        ids |= {f"{one.group_id}/{sample}" for sample in range(one.rollouts)}
    writer.flush()
    return ids
