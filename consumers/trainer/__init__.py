"""The trainer: reads ``ready``, takes gradient steps, writes ``steps`` and ``weights``."""

from consumers.trainer.loop import run

__all__ = ["run"]
