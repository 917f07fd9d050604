"""Makes samples in place of experiences that the log deleted while they waited for external rewards. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rft.stream.pending_sample import PendingSample
from rft.stream.waiting_samples import row_of
from schemas.events import Experience, Waiting

DELETED = "deleted"
"""Cause of these samples."""
_TASK_ID = re.compile(r"train-(\d{8,18})", re.ASCII)


def task_number(group_id: str) -> int:
    """Return the number of the task that the conductor issued under this id; -1 for any other id."""
    found = _TASK_ID.fullmatch(group_id)
    return int(found[1]) if found else -1


def deleted_samples(group: Waiting, partition: int) -> Iterator[PendingSample]:
    """Yield a filtered sample without tokens for each experience of the group that had come."""
    number = task_number(group.group_id)
    for one in group.members:
        if one.offset < 0:
            continue
        index = one.suffix.partition("/")[0]
        experience = Experience(
            experience_id=f"{group.group_id}/{one.suffix}",
            group_id=group.group_id,
            number=number,
            sample=int(index) if index.isascii() and index.isdigit() and len(index) < 9 else 0,
            split="train",
            group_size=group.group_size,
            prompt="",
            response="",
            answer=None,
            created_at=group.since,
            source="processor",
            model="",
            finish_reason="error",
            row=row_of(one),
            rows=one.rows,
            error="its event was deleted from the log while it waited for rewards",
        )
        yield PendingSample(experience, partition, one.offset, 0, DELETED)
