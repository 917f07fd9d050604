"""Weights & Biases."""

from __future__ import annotations

from typing import Any, Literal

from rft.telemetry.base import Point, RunFacts


class WandbTracker:
    """One run with an id of its own. Steps that the server has already are not sent again."""

    def __init__(self, run: RunFacts, *, project: str, mode: Literal["online", "offline"], entity: str | None) -> None:
        import wandb

        self._run: Any = wandb.init(
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
        # Evaluations end after later steps have begun, so the x axis is a number of ours and not wandb's own count.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._known = {name: self._last(name) for name in ("train", "eval")}

    def log(self, point: Point) -> None:
        kind = "eval" if any(name.startswith("eval/") for name in point.values) else "train"
        if point.step > self._known[kind]:
            self._run.log({"step": point.step, f"last_step/{kind}": point.step, **point.values})

    def close(self) -> None:
        self._run.finish()

    def _last(self, kind: str) -> int:
        return int(self._run.summary.get(f"last_step/{kind}", -1)) if self._run.resumed else -1
