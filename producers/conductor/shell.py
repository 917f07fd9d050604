"""The conductor as a role: reads the log, feeds the core, publishes the tasks that it orders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from producers.conductor.core import Conductor, EvalTaskRequest, Order, Seen, TrainTaskRequest
from producers.conductor.evaluation import plans_of
from producers.conductor.fixed import fixed_weights
from producers.conductor.memory import Memory
from producers.conductor.pacing import Pace
from producers.conductor.starvation import explain_starvation
from producers.conductor.task_requests import task_of
from rft.config import Config
from rft.errors import DecodeError, StarvationError
from rft.evaluation.ids import PREFIX
from rft.log.events import Event, EventReader, EventWriter
from rft.tasks import TaskSplits, open_sources
from rft.tasks.curriculum import Curriculum
from rft.tasks.finite import FiniteTasks
from schemas.events import ScoredExperience, Task

CLIENT_ID = "conductor"
POLL_S = 0.5
FLUSH_TIMEOUT_S = 60.0
"""Longer than a broker takes to restart."""
PROGRESS_S = 10.0

log = logging.getLogger("rft")


def run(config: Config, stop: threading.Event) -> None:
    """Issue tasks until the final weights are evaluated, or ``stop`` is set.

    Raises ConfigError for a task source that cannot be used, BrokerError when the log cannot be read or written,
    StarvationError when ``trainer.max_barren_groups`` groups in a row were of no use to the trainer, MissingRangeError
    when what it must know was deleted from the log.
    """
    splits = open_sources(config)
    core = Conductor(Pace.of(config), plans_of(config), config.trainer.model_key, config.run.mode)
    entities = ("tasks", "weights", "steps", "ready")
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
        self._memory = Memory(config, reader)
        self._fixed = config.run.mode in ("explore", "eval")
        """Nobody trains: the conductor announces the weights, and scored tasks are done with."""
        items = splits.train.items if isinstance(splits.train, FiniteTasks) else ()
        self._curriculum = Curriculum(config.tasks, config.run.seed, items)
        self._reads_all = self._fixed or self._curriculum.learns

    def run(self, stop: threading.Event) -> None:
        ends = self._reader.end_offsets()
        while not stop.is_set() and not self._reader.caught_up(ends):
            self._feed(self._reader.poll(POLL_S))
        if stop.is_set():
            return
        pacer = self._core.pacer
        log.info("%d train tasks are issued, %d of them retired", pacer.issued, pacer.retired)
        if self._fixed and self._core.lacks_weights:
            event = fixed_weights(self._config)
            self._writer.send("weights", event)
            self._writer.flush(FLUSH_TIMEOUT_S)
            self._core.step(event)
        orders = self._core.caught_up()
        self._memory.check(self._core.evaluator.pending)
        self._issue(orders)
        while not stop.is_set() and not self._core.done:
            self._read_results_when_awaited()
            self._issue(self._feed(self._reader.poll(POLL_S)))
            self._refuse_barren_run()
            self._tell()
        self._tell()

    def _refuse_barren_run(self) -> None:
        allowed = self._config.trainer.max_barren_groups
        if allowed and self._core.barren >= allowed:
            raise StarvationError(explain_starvation(self._config, self._core.barren))

    def _feed(self, events: Iterable[Event]) -> list[Order]:
        orders: list[Order] = []
        for event in events:
            seen = _read(event, self._reads_all)
            if seen is not None:
                self._remember(seen)
                self._memory.note(seen)
                orders += self._core.step(seen)
        return orders

    def _read_results_when_awaited(self) -> None:
        """``ready`` carries all experiences; nobody reads them for nothing while no evaluation is under way."""
        if not self._reads_all and self._reads_results and not self._core.evaluator.awaits_results:
            self._reader.pause("ready")
            self._reads_results = False

    def _issue(self, orders: list[Order]) -> None:
        now_ms, issued = int(time.time() * 1000), 0
        if not self._reads_results and any(isinstance(order, EvalTaskRequest) for order in orders):
            # Results of tasks that are not issued yet can only stand beyond the present end.
            for (entity, partition), end in self._reader.end_offsets().items():
                if entity == "ready":
                    self._reader.seek(entity, partition, end)
            self._reader.resume("ready")
            self._reads_results = True
        for order in orders:
            if isinstance(order, TrainTaskRequest):
                item = self._splits.train[self._curriculum.index(order.number)]
            else:
                item = self._splits.sets[order.set_name][order.number]
            self._writer.send("tasks", task_of(order, item, self._config, now_ms))
            issued += 1
        if issued:
            self._writer.flush(FLUSH_TIMEOUT_S)

    def _remember(self, seen: Seen) -> None:
        """What a curriculum by results is made of."""
        history = self._curriculum.history
        match seen:
            case Task(split="train") if self._curriculum.learns and seen.number >= 0:
                history.saw_task(seen.number, seen.prompt)
            case ScoredExperience() if self._curriculum.learns and seen.experience.number >= 0:
                if seen.experience.split == "train":
                    # Uniform groups are filtered, yet they say most about how hard a task is.
                    failed = seen.experience.finish_reason == "error"
                    history.saw_reward(seen.experience.number, seen.experience.sample, 0.0 if failed else seen.reward)
            case _:
                pass

    def _tell(self) -> None:
        for result in self._core.news():
            log.info(
                "evaluated weight version %d on %s: mean reward %.3f, %d tasks",
                result.version,
                result.set_name,
                result.reward,
                result.tasks,
            )
        if time.monotonic() >= self._progress_at:
            self._progress_at = time.monotonic() + PROGRESS_S
            pacer = self._core.pacer
            log.info(
                "step %d, weight version %d: %d train tasks issued, %d in flight",
                pacer.steps_done,
                pacer.version,
                pacer.issued,
                pacer.in_flight,
            )


def _read(event: Event, whole: bool) -> Seen | None:
    """The event as the core takes it; None for what does not concern the conductor or is malformed.

    Unless ``whole``, of ``ready`` only results of evaluations do.
    """
    if not whole and event.entity == "ready" and not (event.key or b"").startswith(PREFIX.encode()):
        return None  # most of the traffic
    try:
        record: Seen = event.record()
    except DecodeError as error:
        log.warning("%s, partition %d, offset %d: %s", event.entity, event.partition, event.offset, error)
        return None
    return record
