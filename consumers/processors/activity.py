"""Reports what a processor does and waits for."""

from __future__ import annotations

from consumers.processors.shell import Shell
from rft.stream.pipeline import Pipeline
from rft.telemetry.activity import SHOWN_GROUPS, Activity, name_groups


class ProcessorActivity:
    """Looks at the pipeline and its shell. Call ``report`` every tenth of a second, from the loop that commits.

    Only that loop reports progress: if it hangs, the processor stands still, although events may still be handled.
    """

    def __init__(self, activity: Activity, pipeline: Pipeline, shell: Shell) -> None:
        self._activity = activity
        self._pipeline = pipeline
        self._shell = shell
        self._seen: tuple[int, int] | None = None

    def report(self) -> None:
        """Report progress since the last call, and the present activity."""
        pipeline, shell = self._pipeline, self._shell
        seen = pipeline.counts.total(), shell.unresolved
        if self._seen is not None and seen != self._seen:
            self._activity.progressed()
        self._seen = seen
        works, waits = self._activity.works, self._activity.waits
        if shell.awaited_schema is not None:
            waits("the schema registry: schema %s", shell.awaited_schema)
        elif shell.writes:
            works("writes %d outcomes", shell.writes)
        elif shell.handling:
            works("handles %s", " and ".join(sorted(shell.handling)))
        elif not shell.partitions:
            waits("partitions: the other processors have them all, or the consumer group rebalances")
        elif pipeline.room is not None and len(pipeline.room):
            groups = name_groups(pipeline.room.first_groups(SHOWN_GROUPS), len(pipeline.room))
            waits("rewards or samples of %s", groups)
        elif len(pipeline.groups):
            names = [group.group_id for _, group in zip(range(SHOWN_GROUPS), pipeline.groups, strict=False)]
            waits("the rest of %s", name_groups(names, len(pipeline.groups)))
        elif shell.unresolved:
            works("has %d events without an outcome", shell.unresolved)
        else:
            waits("experiences")
