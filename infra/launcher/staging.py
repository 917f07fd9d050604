"""A run in stages: each a run of its own, in its own folder and on its own log, from the last one's weights.

``runs/<name>/stages/<number>-<stage>/`` is what ``runs/<name>/`` is of other runs; ``runs/<name>/stages.json`` sums up.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.launcher.folder import REPORT, earlier_run, locked, move_aside
from infra.launcher.launch import launch
from infra.launcher.role_set import MakeCommands, role_commands
from infra.launcher.supervisor import DONE
from rft.config import Config
from rft.errors import ConfigError
from rft.weights.adapters import holds_adapters
from rft.weights.checkpoint import versions_of

SUMMARY = "stages.json"
MERGED = "merged"
"""Folder in a stage's, for whole models."""


def launch_stages(
    config: Config,
    *,
    plain: bool = False,
    fresh: bool = False,
    console: Console | None = None,
    make_commands: MakeCommands = role_commands,
) -> int:
    """Run all stages that are not finished; returns the exit code of the last that ran.

    Raises RftError as :func:`infra.launcher.launch.launch` does.
    """
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    path = config.run.path
    with ExitStack() as held:
        held.enter_context(locked(path))
        if _to_be_replaced(config, fresh=fresh):
            aside = move_aside(path, Path(config.policy.model), time.time())
            held.enter_context(locked(path))
            say(f"an earlier run was moved to {aside}")
        model: str | None = None
        results: list[dict[str, Any]] = []
        for index, stage in enumerate(config.stages):
            own = config.of_stage(index, model)
            title = f"stage {index + 1} of {len(config.stages)}, {stage.name}"
            if earlier_run(own.run.path) == "finished":
                say(f"{title}: finished already, in {own.run.path}")
            else:
                say(f"{title}: from {own.policy.model}")
                code = launch(own, plain=plain, console=console, make_commands=make_commands)
                if code != DONE:
                    say(f"{title} is not finished. The same command goes on with it")
                    return code
            model = _left_by(own)
            results.append(_result(own, stage.name, model))
            _write(path / SUMMARY, results)
        for result in results:
            say(_told(result))
        say(f"weights: {model}")
    return DONE


def newest_weights(config: Config) -> Path | None:
    """The newest weight version in the run's folder: the final one of a run that is finished. None if it made none."""
    folder = versions_of(config.run.path, config.trainer.model_key)
    return max((version for version in folder.glob("v*") if version.is_dir()), default=None)


def one_stage(config: Config, name: str | None) -> Config:
    """The configuration of the stage called ``name``, by default of the last that was begun, else of the first.

    Raises ConfigError when there is none of that name.
    """
    names = [stage.name for stage in config.stages]
    if name is not None and name not in names:
        raise ConfigError(f"--stage {name}: the configuration's stages are {', '.join(names)}")
    begun = [i for i in range(len(names)) if earlier_run(config.of_stage(i).run.path) != "none"]
    chosen = names.index(name) if name is not None else max(begun, default=0)
    model: str | None = None
    for index in range(chosen):
        model = _left_by(config.of_stage(index, model))
    return config.of_stage(chosen, model)


def _left_by(stage: Config) -> str:
    """The model that the next stage starts from: a whole one, if need be made of the adapters that the stage left."""
    left = newest_weights(stage)
    if left is None or not holds_adapters(left):
        return str(left or stage.policy.model)
    # This loads torch.
    from rft.policy.adapted import write_whole

    return str(write_whole(left, stage.run.path / MERGED / left.name))


def _to_be_replaced(config: Config, *, fresh: bool) -> bool:
    """Whether to begin anew: asked to, or all is finished and a run with this broker would not stop at that."""
    stages = [earlier_run(config.of_stage(index).run.path) for index in range(len(config.stages))]
    if all(stage == "none" for stage in stages):
        return False
    return fresh or (config.broker.kind == "embedded" and all(stage == "finished" for stage in stages))


def _result(config: Config, name: str, model: str) -> dict[str, Any]:
    report = json.loads((config.run.path / REPORT).read_text("utf-8"))
    kept = ("steps", "wall_s", "accuracy")
    return {
        "name": name,
        "folder": str(config.run.path),
        "mode": config.run.mode,
        **{key: report[key] for key in kept},
        "started_from": config.policy.model,
        "weights": model,
    }


def _told(result: dict[str, Any]) -> str:
    text = f"stage {result['name']}: {result['steps']} steps in {result['wall_s']:.0f} s"
    before, after = result["accuracy"]["before"], result["accuracy"]["after"]
    if before is not None and after is not None:
        text += f", held-out accuracy {before:.1%} before, {after:.1%} after"
    return text


def _write(path: Path, results: list[dict[str, Any]]) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    os.replace(fresh, path)
