"""Runs the conductor as a role: reads the log, feeds the core, publishes the tasks that it requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from producers.conductor.core import Conductor, ConductorInput
from producers.conductor.evaluation import evaluation_plans
from producers.conductor.pacing import Pace
from producers.conductor.retention_check import RetentionCheck
from producers.conductor.starvation import StarvationCheck
from producers.conductor.task_requests import EvalTaskRequest, TaskRequest, TrainTaskRequest, make_task
from producers.conductor.waits import describe_wait
from rft.config import Config
from rft.errors import DecodeError
from rft.evaluation.ids import PREFIX
from rft.log.dead_letters import Stage
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, DeadLetterRejects, Reject, read_record
from rft.log.topics import ENTITIES
from rft.log.writer import EventWriter
from rft.lora.adapter import Adapter, base_model_folder
from rft.model_files.model_folder import companion_files
from rft.stream.deleted_samples import DELETED
from rft.stream.sample_rows import ROWS_MISSING
from rft.stream.waiting_samples import check_members
from rft.tasks import TaskSplits, open_sources
from rft.tasks.curriculum import Curriculum
from rft.tasks.finite import FiniteTasks
from rft.telemetry.activity import role_activity
from rft.telemetry.input_wait import InputWait
from rft.weights.transport import NewVersion
from rft.weights.version_folders import write_version
from schemas.events import ScoredExperience, Task, WeightVersion

CLIENT_ID = "conductor"
POLL_S = 0.5
PROGRESS_S = 10.0

log = logging.getLogger("rft")


def run(config: Config, stop: threading.Event) -> None:
    """Issue tasks until the final weights are evaluated, or ``stop`` is set.

    Raises:
        ConfigError: A task source cannot be used.
        BrokerError: The log cannot be read or written.
        StarvationError: The trainer could use none of ``trainer.max_barren_groups`` groups in a row, or
            ``trainer.max_failed_groups`` in a row failed.
        MissingRangeError: What the conductor must know was deleted from the log.
    """
    splits = open_sources(config)
    pace = Pace.from_config(config)
    core = Conductor(pace, evaluation_plans(config), config.trainer.model_key, config.run.mode)
    entities = ("tasks", "weights", "steps", "ready", *(("waiting",) if pace.free_waiting else ()))
    with EventWriter(config, CLIENT_ID) as writer, EventReader(config, CLIENT_ID, entities) as reader:
        _Shell(config, core, splits, reader, writer).run(stop)


class _Shell:
    def __init__(
        self, config: Config, core: Conductor, splits: TaskSplits, reader: EventReader, writer: EventWriter
    ) -> None:
        self._config = config
        self._core = core
        self._splits = splits
        self._reader = reader
        self._writer = writer
        self._progress_at = time.monotonic() + PROGRESS_S
        self._reads_results = True
        self._dead_letters = DeadLetterRejects(config, CLIENT_ID, writer)
        self._counted = CountedRejects()
        self._retention = RetentionCheck(config, reader)
        self._fixed = config.run.mode in ("explore", "eval")
        """Nothing is trained: the conductor announces the weights, and a scored task is retired."""
        items = splits.train.items if isinstance(splits.train, FiniteTasks) else ()
        self._curriculum = Curriculum(config.tasks, config.run.seed, items)
        self._reads_all = self._fixed or self._curriculum.learns
        self._activity = role_activity()
        self._input = InputWait(self._activity, reader.at_end)

    def run(self, stop: threading.Event) -> None:
        self._activity.works("reads the log from its beginning")
        ends = self._reader.end_offsets()
        while not stop.is_set() and not self._reader.caught_up(ends):
            self._feed(self._poll())
        if stop.is_set():
            return
        pacer = self._core.pacer
        log.info("%d train tasks are issued, %d of them retired", pacer.issued, pacer.retired)
        if self._fixed and self._core.lacks_weights:
            event = _publish_fixed_weights(self._config)
            self._writer.send("weights", event)
            self._writer.flush()
            self._core.step(event)
        requests = self._core.caught_up()
        self._retention.check(self._core.evaluator.pending)
        self._issue(requests)
        starvation = StarvationCheck(self._config, self._core)
        while not stop.is_set() and not self._core.done:
            self._pause_results_when_complete()
            self._issue(self._feed(self._poll()))
            starvation.check()
            self._log_progress()
        self._log_progress()

    def _poll(self) -> list[Event]:
        events = self._reader.poll(POLL_S)
        if events:
            self._input.came()
        else:
            self._input.nothing_came(describe_wait(self._core))
        return events

    def _feed(self, events: Iterable[Event]) -> list[TaskRequest]:
        requests: list[TaskRequest] = []
        for event in events:
            record = _read(event, self._reads_all, self._reject)
            if record is not None:
                self._update_curriculum(record)
                self._retention.observe(record)
                requests += self._core.step(record)
        return requests

    def _reject(self, event: Event, stage: Stage, error: DecodeError) -> None:
        """Set an event aside that is no record. The other topics have other roles that publish dead letters."""
        rejects = self._dead_letters if event.entity == "weights" else self._counted
        rejects.reject(event, stage, error)

    def _pause_results_when_complete(self) -> None:
        """Stop reading ``ready``, which carries all experiences, once no evaluation awaits results."""
        if not self._reads_all and self._reads_results and not self._core.evaluator.awaits_results:
            self._reader.pause("ready")
            self._reads_results = False

    def _issue(self, requests: list[TaskRequest]) -> None:
        now_ms, issued = int(time.time() * 1000), 0
        if not self._reads_results and any(isinstance(request, EvalTaskRequest) for request in requests):
            # Results of tasks that are not issued yet can only come after the present end.
            for (entity, partition), end in self._reader.end_offsets().items():
                if entity == "ready":
                    self._reader.seek(entity, partition, end)
            self._reader.resume("ready")
            self._reads_results = True
        for request in requests:
            if isinstance(request, TrainTaskRequest):
                item = self._splits.train[self._curriculum.index(request.number)]
            else:
                item = self._splits.sets[request.set_name][request.number]
            self._writer.send("tasks", make_task(request, item, self._config, now_ms))
            issued += 1
        if issued:
            self._writer.flush()

    def _update_curriculum(self, record: ConductorInput) -> None:
        """Take in what a curriculum by results learns from."""
        history = self._curriculum.history
        match record:
            case Task(split="train") if self._curriculum.learns and record.number >= 0:
                history.saw_task(record.number, record.prompt)
            case ScoredExperience(experience=experience) if self._curriculum.learns and experience.number >= 0:
                # What the log deleted, or what lacks rows, was never scored.
                if experience.split == "train" and record.cause not in (DELETED, ROWS_MISSING):
                    # Uniform groups are filtered, yet they say most about how hard a task is.
                    failed = experience.finish_reason == "error"
                    history.saw_reward(experience.number, experience.sample, 0.0 if failed else record.reward)
            case _:
                pass

    def _log_progress(self) -> None:
        for result in self._core.take_outcomes():
            log.info(
                "evaluated weight version %d on %s: %s, %d tasks",
                result.version,
                result.set_name,
                "no rewards but external ones" if result.reward is None else f"mean reward {result.reward:.3f}",
                result.tasks,
            )
        if time.monotonic() >= self._progress_at:
            self._progress_at = time.monotonic() + PROGRESS_S
            pacer = self._core.pacer
            log.info(
                "step %d, weight version %d: %d train tasks issued, %d in flight%s",
                pacer.steps_done,
                pacer.version,
                pacer.issued,
                pacer.in_flight,
                f", {pacer.waiting} of them wait for rewards without a slot" if pacer.waiting else "",
            )


def _read(event: Event, read_all: bool, reject: Reject) -> ConductorInput | None:
    """Decode an event for the core; None if it does not concern the conductor or is no record of its topic.

    Unless ``read_all``, only results of evaluations concern it in ``ready``.
    """
    if not read_all and event.entity == "ready" and not (event.key or b"").startswith(PREFIX.encode()):
        return None  # most of the traffic
    kind = ENTITIES[event.entity].record
    assert kind is not None
    check = cast(Callable[[Any], None], check_members) if event.entity == "waiting" else None
    return cast(ConductorInput | None, read_record(event, kind, reject, check=check))


def _publish_fixed_weights(config: Config) -> WeightVersion:
    """Copy ``policy.model`` into the run's folder as version 0, and return the event that announces it.

    In mode ``eval`` it is the final version too. Raises PolicyError or WeightsError.
    """
    # These load torch.
    from rft.model_files.tensors import read_weights
    from rft.model_files.weights_file import build_weights_file

    folder = Path(config.policy.model)
    adapter, base_folder = Adapter.from_folder(folder), base_model_folder(folder)
    weights = build_weights_file(read_weights(folder), metadata=adapter.metadata() if adapter else None)
    companions = companion_files(base_folder)
    if adapter:
        companions = adapter.companions(companions, str(base_folder))
    new = NewVersion(config.trainer.model_key, version=0, step=0, weights=weights, final=config.run.mode == "eval")
    return write_version(new, companions, config.run.path, keep_versions=config.trainer.keep_versions)
