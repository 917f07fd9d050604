"""Trackers: TensorBoard, Weights & Biases, MLflow and JSONL behind one contract."""
