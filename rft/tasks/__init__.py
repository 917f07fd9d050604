"""Task sources, and the split of their tasks into training tasks and held-out sets."""

from rft.tasks.base import TaskItem, TaskSource, TaskSplits
from rft.tasks.splits import open_sources

__all__ = ["TaskItem", "TaskSource", "TaskSplits", "open_sources"]
