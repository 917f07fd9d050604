"""Runs the rollouts of an explorer, starts the next ones, and publishes what each gave.

It lives on one event loop. Other threads reach it through the loop's ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from producers.explorer.backlog import Backlog, Delivery
from producers.explorer.rollouts import roll_out
from rft.config import RolloutConfig
from rft.errors import RolloutError
from rft.evaluation.ids import PREFIX
from rft.policy.base import Policy
from rft.telemetry.notes import NOTED, role_notes
from rft.workflows import experiences
from rft.workflows.base import Workflow
from schemas.events import Experience

LOGGED_FAILURES = 20
"""Failures logged one by one; afterwards every hundredth."""

log = logging.getLogger("rft")


class RolloutPool:
    """Runs up to ``max_in_flight`` rollouts at once and hands the rows of each to ``publish`` as it ends."""

    def __init__(
        self,
        config: RolloutConfig,
        policy: Policy,
        workflow: Workflow,
        *,
        source: str,
        model: str,
        publish: Callable[[Delivery, list[Experience]], None],
        cancelled: Callable[[Delivery], None] = lambda _: None,
    ) -> None:
        """``cancelled`` is called for each rollout that its group does not need any more. It publishes nothing."""
        self._config = config
        self._policy = policy
        self._workflow = workflow
        self._source = source
        self._model = model
        self._publish = publish
        self._cancelled = cancelled
        self._backlog = Backlog()
        self._rollouts: dict[asyncio.Task[None], Delivery] = {}
        """The rollouts that run, and their tasks."""
        self._good: Counter[Delivery] = Counter()
        """Rollouts that are on the log and did not fail, of tasks with spare ones of which others may still run."""
        self._unneeded: set[asyncio.Task[None]] = set()
        """Rollouts that were cancelled because their groups are complete without them."""
        self._abandoned = False
        self._busy_since = 0.0
        self._busy_s = 0.0
        self._began = time.monotonic()
        self.rollouts = 0
        """Rollouts that ended, failed ones included."""
        self.failed = 0
        self.cancelled = 0
        """Rollouts that were stopped because their groups were complete without them."""
        self.tokens = 0
        """Tokens written by the policy."""
        self.error: BaseException | None = None
        """An error that must end the explorer, such as an experience that cannot be published."""

    @property
    def saturated(self) -> bool:
        """Whether as many rollouts wait to start as can run. Thread-safe."""
        return len(self._rollouts) + self._backlog.ready_samples >= 2 * self._config.max_in_flight

    @property
    def running(self) -> int:
        """Rollouts that run now."""
        return len(self._rollouts)

    def running_groups(self) -> list[str]:
        """Return the groups whose rollouts run now, oldest first: by number, or by id if they have none."""
        tasks = dict.fromkeys(
            (task.number, task.group_id) for task in (delivery.task for delivery in self._rollouts.values())
        )
        return [group_id if number < 0 or group_id.startswith(PREFIX) else str(number) for number, group_id in tasks]

    @property
    def awaited_version(self) -> int | None:
        """Lowest weight version that a task waits for; None if none waits."""
        return self._backlog.awaited_version

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the start; ``generating_s`` and ``waiting_s``: time with and without a running rollout."""
        now = time.monotonic()
        busy = self._busy_s + (now - self._busy_since if self._rollouts else 0.0)
        return {
            "rollouts": float(self.rollouts),
            "failed": float(self.failed),
            "cancelled": float(self.cancelled),
            "tokens": float(self.tokens),
            "generating_s": busy,
            "waiting_s": now - self._began - busy,
            "running": float(len(self._rollouts)),
            "tasks_awaiting_weights": float(self._backlog.waiting),
        }

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Add tasks. They start when their weights are here and there is room."""
        for delivery in deliveries:
            self._backlog.add(delivery)
        self._start()

    def acknowledged(self, delivery: Delivery, *, good: bool) -> None:
        """Note that one more rollout of a task is on the log. Cancel the others if the group has enough ``good`` ones.

        Call it for tasks with spare rollouts.
        """
        self._good[delivery] += good
        others = [one for one, owner in self._rollouts.items() if owner is delivery and one not in self._unneeded]
        if self._good[delivery] >= delivery.task.samples or not others:
            del self._good[delivery]
            self._unneeded.update(others)
            for rollout in others:
                rollout.cancel()

    def set_version(self, version: int) -> None:
        """Note that the policy holds the weights of ``version``."""
        self._backlog.set_version(version)
        self._start()

    def count_failure(self, experience_id: str, error: Exception) -> None:
        """Count a rollout that failed for good, and make a note of its cause."""
        self.failed += 1
        role_notes().add("warning", f"a rollout failed: {error}")
        if self.failed <= LOGGED_FAILURES or self.failed % 100 == 0:
            log.warning("rollout %s (%d failed so far): %s", experience_id, self.failed, error, extra=NOTED)

    async def abandon(self) -> None:
        """Cancel all rollouts, and start none any more. Their tasks stay unfinished."""
        self._abandoned = True
        for rollout in list(self._rollouts):
            rollout.cancel()
        await asyncio.gather(*self._rollouts, return_exceptions=True)

    def _start(self) -> None:
        while not self._abandoned and (delivery := self._backlog.pop(len(self._rollouts), self._config.max_in_flight)):
            if not self._rollouts:
                self._busy_since = time.monotonic()
            for sample in range(delivery.task.rollouts):
                rollout = asyncio.create_task(self._roll_out(delivery, sample))
                self._rollouts[rollout] = delivery
                rollout.add_done_callback(self._ended)

    def _ended(self, rollout: asyncio.Task[None]) -> None:
        delivery = self._rollouts.pop(rollout)
        unneeded = rollout in self._unneeded
        self._unneeded.discard(rollout)
        if unneeded and rollout.cancelled():
            self.cancelled += 1
            self._cancelled(delivery)
        if not rollout.cancelled() and rollout.exception():
            self.error = self.error or rollout.exception()
        if not self._rollouts:
            self._busy_s += time.monotonic() - self._busy_since
        if unneeded or not rollout.cancelled():
            self._start()

    async def _roll_out(self, delivery: Delivery, sample: int) -> None:
        task, began = delivery.task, time.time()
        error: RolloutError | None = None
        try:
            rollout = await roll_out(
                task,
                sample,
                self._policy,
                self._workflow,
                deadline_s=self._config.deadline_s,
                retries=self._config.retries,
            )
        except RolloutError as failure:
            error = failure
        now = time.time()
        stamp = {"now_ms": int(now * 1000), "duration_ms": int((now - began) * 1000)}
        self.rollouts += 1
        if error:
            self.count_failure(experiences.experience_id(task, sample), error)
            failed = experiences.make_failed_experience(
                task, sample, error, source=self._source, model=self._model, **stamp
            )
            self._publish(delivery, [failed])
            return
        rows = experiences.make_experiences(task, sample, rollout, source=self._source, model=self._model, **stamp)
        self.tokens += sum(int(experience.action_mask.sum()) for experience in rows)
        self._publish(delivery, rows)
