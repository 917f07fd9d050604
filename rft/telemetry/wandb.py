"""A tracker for Weights & Biases."""

from __future__ import annotations

from typing import Literal

from rft.telemetry.base import Point, RunInfo


class WandbTracker:
    """One run of Weights & Biases, with the run's identity as its id. Steps that it already has are not sent again."""

    def __init__(self, run: RunInfo, *, project: str, mode: Literal["online", "offline"], entity: str | None) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            entity=entity,
            name=run.name,
            id=run.identity,
            resume="allow",
            mode=mode,
            dir=str(run.folder),
            config=dict(run.config),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        # An evaluation of a step ends after later steps have begun, so wandb's own counter cannot be the x axis.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._last_steps = {kind: self._last_step(kind) for kind in ("train", "eval")}

    def log(self, point: Point) -> None:
        kind = "eval" if any(name.startswith("eval/") for name in point.values) else "train"
        if point.step > self._last_steps[kind]:
            self._run.log({"step": point.step, f"last_step/{kind}": point.step, **point.values})

    def close(self) -> None:
        self._run.finish()

    def _last_step(self, kind: str) -> int:
        return int(self._run.summary.get(f"last_step/{kind}", -1)) if self._run.resumed else -1
