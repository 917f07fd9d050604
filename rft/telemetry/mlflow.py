"""A tracker for MLflow: a tracking server, or files."""

from __future__ import annotations

import os

from rft.telemetry.base import Point, RunInfo, flatten

FOLDER = "mlflow"
TAG = "stream_rft.identity"
MAX_PARAMETERS = 100
"""MLflow's limit of parameters in one request."""
MAX_VALUE_CHARS = 500


class MlflowTracker:
    """One MLflow run, found again by a tag. Values that it already has are not written again."""

    def __init__(self, run: RunInfo, *, uri: str | None, experiment: str) -> None:
        tracking_uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
        if tracking_uri is None:
            # MLflow wants a database by default; the metrics of one run need none.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            tracking_uri = (run.folder / FOLDER).absolute().as_uri()
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=tracking_uri)
        existing = self._client.get_experiment_by_name(experiment)
        experiment_id = existing.experiment_id if existing else self._client.create_experiment(experiment)
        runs = self._client.search_runs([experiment_id], f"tags.`{TAG}` = '{run.identity}'", max_results=1)
        self._last: dict[str, int] = {}
        if runs:
            self._id = runs[0].info.run_id
            self._known = set(runs[0].data.metrics)
            self._client.update_run(self._id, status="RUNNING")
            return
        self._known = set()
        created = self._client.create_run(experiment_id, run_name=run.name, tags={TAG: run.identity})
        self._id = created.info.run_id
        self._log_parameters(run)

    def log(self, point: Point) -> None:
        from mlflow.entities import Metric

        new = [
            Metric(name, value, point.at_ms, point.step)
            for name, value in point.values.items()
            if point.step > self._last_step(name)
        ]
        if new:
            self._client.log_batch(self._id, metrics=new)
        for metric in new:
            self._last[metric.key] = metric.step

    def close(self) -> None:
        self._client.set_terminated(self._id)

    def _last_step(self, name: str) -> int:
        if name not in self._last:
            history = self._client.get_metric_history(self._id, name) if name in self._known else []
            self._last[name] = max((metric.step for metric in history), default=-1)
        return self._last[name]

    def _log_parameters(self, run: RunInfo) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, str(value)[:MAX_VALUE_CHARS]) for name, value in flatten(run.config).items()]
        for start in range(0, len(parameters), MAX_PARAMETERS):
            self._client.log_batch(self._id, params=parameters[start : start + MAX_PARAMETERS])
