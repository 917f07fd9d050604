"""Reports what an explorer does and waits for, from the parts that know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from producers.explorer.feed import TaskFeed
from producers.explorer.follower import WeightsFollower
from producers.explorer.pool import RolloutPool
from rft.log.writer import EventWriter
from rft.telemetry.activity import Activity, name_groups

if TYPE_CHECKING:
    from producers.gateway.generation_server import GenerationServer

SILENT_S = 30.0
"""A thread whose loop has not turned for so long does something that takes long, or hangs."""


class ExplorerActivity:
    """Looks at the parts of an explorer. Call ``report`` at each turn of its event loop."""

    def __init__(
        self,
        activity: Activity,
        pool: RolloutPool,
        feed: TaskFeed,
        follower: WeightsFollower,
        writer: EventWriter,
        generation: GenerationServer | None,
    ) -> None:
        self._activity = activity
        self._pool = pool
        self._feed = feed
        self._follower = follower
        self._writer = writer
        self._generation = generation
        self._seen: tuple[int, ...] = ()

    def report(self) -> None:
        """Report progress since the last call, and the present activity."""
        pool, feed, version = self._pool, self._feed, self._follower.held.version
        generation = self._generation
        answered = generation.answered if generation else 0
        seen = (pool.rollouts, feed.acknowledged, version, pool.running, answered)
        if seen != self._seen:
            if self._seen:
                self._activity.progressed()
            self._seen = seen
        works, waits = self._activity.works, self._activity.waits
        if feed.pulse.age_s > SILENT_S:
            works("takes tasks; its consumer has not returned from its last call")
        elif self._follower.pulse.age_s > SILENT_S:
            works("takes weight version %d or a newer one", version + 1)
        elif self._writer.full:
            works("publishes %d experiences; it starts no more rollouts meanwhile", pool.rollouts - feed.acknowledged)
        elif pool.running:
            works("rolls out %s", name_groups(pool.running_groups()))
        elif pool.rollouts > feed.acknowledged:
            works("publishes experiences")
        elif feed.look.lags:
            works("takes tasks that are on the log and do not come")
        elif version < 0:
            waits("the first weight version")
        elif pool.awaited_version is not None:
            waits("weight version %d, which its next task asks for; it holds version %d", pool.awaited_version, version)
        elif generation and generation.under_way:
            works("generates for %d requests of gateways", generation.under_way)
        else:
            waits("requests of gateways, and tasks" if generation else "tasks")
