"""MLflow: a tracking server, or files."""

from __future__ import annotations

import os
from typing import Any

from rft.telemetry.base import Point, RunFacts, flat

FOLDER = "mlflow"
TAG = "stream_rft.identity"
MOST_PARAMETERS = 100
"""In one request."""
LONGEST_VALUE = 500


class MlflowTracker:
    """One MLflow run, found again by a tag. Values that it has already are not written again."""

    def __init__(self, run: RunFacts, *, uri: str | None, experiment: str) -> None:
        place = uri or os.environ.get("MLFLOW_TRACKING_URI")
        if place is None:
            # MLflow asks for a database by default; one run's numbers need none.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            place = (run.folder / FOLDER).absolute().as_uri()
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=place)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        runs = self._client.search_runs([number], f"tags.`{TAG}` = '{run.identity}'", max_results=1)
        self._last: dict[str, int] = {}
        if runs:
            self._id = runs[0].info.run_id
            self._known = set(runs[0].data.metrics)
            self._client.update_run(self._id, status="RUNNING")
            return
        self._known = set()
        made = self._client.create_run(number, run_name=run.name, tags={TAG: run.identity})
        self._id = made.info.run_id
        self._log_parameters(run)

    def log(self, point: Point) -> None:
        from mlflow.entities import Metric

        fresh = [
            Metric(name, value, point.at_ms, point.step)
            for name, value in point.values.items()
            if point.step > self._last_step(name)
        ]
        if fresh:
            self._client.log_batch(self._id, metrics=fresh)
        for metric in fresh:
            self._last[metric.key] = metric.step

    def close(self) -> None:
        self._client.set_terminated(self._id)

    def _last_step(self, name: str) -> int:
        if name not in self._last:
            history = self._client.get_metric_history(self._id, name) if name in self._known else []
            self._last[name] = max((metric.step for metric in history), default=-1)
        return self._last[name]

    def _log_parameters(self, run: RunFacts) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, str(value)[:LONGEST_VALUE]) for name, value in flat(run.config).items()]
        for start in range(0, len(parameters), MOST_PARAMETERS):
            self._client.log_batch(self._id, params=parameters[start : start + MOST_PARAMETERS])
