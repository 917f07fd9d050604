"""Where tasks come from, and which of them are never trained on."""

from rft.tasks.base import TaskItem, TaskSource, TaskSplits
from rft.tasks.splits import open_sources

__all__ = ["TaskItem", "TaskSource", "TaskSplits", "open_sources"]
