"""The tracker sends a run's steps and evaluations from its log to TensorBoard, Weights & Biases, MLflow and JSONL."""

from consumers.tracker.role import run, track

__all__ = ["run", "track"]
