"""Runs stages one after the other: each is a run with its own folder and log, and starts from the last one's weights.

A stage's folder ``runs/<name>/stages/<number>-<stage>/`` has the same content as ``runs/<name>/`` of a run without
stages. ``runs/<name>/stages.json`` is the summary.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from consumers.report.learning import change_text
from consumers.report.measures import NOT_SCORED
from infra.launcher.folder import REPORT, earlier_run, locked, move_aside
from infra.launcher.launch import launch
from infra.launcher.role_set import MakeCommands, role_commands
from infra.launcher.supervisor import DONE
from infra.preflight.gate import refuse_faults, roles_of_run
from rft.config import Config
from rft.errors import ConfigError
from rft.model_files.model_folder import holds_adapters
from rft.weights.version_folders import versions_root

SUMMARY = "stages.json"
NOT_EVALUATED = {"before": None, "after": None, "noise": None}
MERGED = "merged"
"""Folder within a stage's folder, for models with merged adapters."""


def launch_stages(
    config: Config,
    *,
    plain: bool = False,
    fresh: bool = False,
    console: Console | None = None,
    make_commands: MakeCommands = role_commands,
) -> int:
    """Run all stages that are not finished, and return the exit code of the last that ran.

    Raises RftError as :func:`infra.launcher.launch.launch` does.
    """
    console = console or Console()

    def print_line(text: str) -> None:
        console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    path = config.run.path
    with ExitStack() as held:
        held.enter_context(locked(path))
        if _starts_over(config, fresh=fresh):
            aside = move_aside(path, Path(config.policy.model), time.time())
            held.enter_context(locked(path))
            print_line(f"an earlier run was moved to {aside}")
        _check(config)
        model: str | None = None
        results: list[dict[str, Any]] = []
        for index, stage in enumerate(config.stages):
            own = config.of_stage(index, model)
            title = f"stage {index + 1} of {len(config.stages)}, {stage.name}"
            if earlier_run(own.run.path) == "finished":
                print_line(f"{title}: finished already, in {own.run.path}")
            else:
                print_line(f"{title}: from {own.policy.model}")
                code = launch(own, plain=plain, console=console, make_commands=make_commands)
                if code != DONE:
                    print_line(f"{title} is not finished. The same command resumes it.")
                    return code
            model = _resulting_model(own)
            results.append(_result(own, stage.name, model))
            _write(path / SUMMARY, results)
        for result in results:
            print_line(_describe_result(result))
            for warning in result.get("learning", ()):
                print_line(f"stage {result['name']}, warning: {warning}")
        print_line(f"weights: {model}")
    return DONE


def _check(config: Config) -> None:
    """Check all stages that are not finished before the first one starts. Raises ConfigError with all failures."""
    failures = []
    for index, stage in enumerate(config.stages):
        own = config.of_stage(index)
        if earlier_run(own.run.path) == "finished":
            continue
        try:
            refuse_faults(own, roles_of_run(own), lambda _: None)
        except ConfigError as error:
            failures += [f"[[stages]] {stage.name}: {line}" for line in str(error).splitlines()]
    if failures:
        raise ConfigError("\n".join(dict.fromkeys(failures)))


def newest_weights(config: Config) -> Path | None:
    """Return the newest weight version in the run's folder (the final one of a finished run), or None."""
    folder = versions_root(config.run.path, config.trainer.model_key)
    return max((version for version in folder.glob("v*") if version.is_dir()), default=None)


def one_stage(config: Config, name: str | None) -> Config:
    """Return the configuration of the stage ``name``; by default the last stage that was begun, else the first.

    Raises ConfigError when no stage has that name.
    """
    names = [stage.name for stage in config.stages]
    if name is not None and name not in names:
        raise ConfigError(f"--stage {name}: the configuration's stages are {', '.join(names)}")
    begun = [i for i in range(len(names)) if earlier_run(config.of_stage(i).run.path) != "none"]
    chosen = names.index(name) if name is not None else max(begun, default=0)
    model: str | None = None
    for index in range(chosen):
        model = _resulting_model(config.of_stage(index, model))
    return config.of_stage(chosen, model)


def _resulting_model(stage: Config) -> str:
    """Return the model from which the next stage starts. Adapters are merged into their base model."""
    weights = newest_weights(stage)
    if weights is None or not holds_adapters(weights):
        return str(weights or stage.policy.model)
    # This loads torch.
    from rft.lora.base_model import write_merged_model

    return str(write_merged_model(weights, stage.run.path / MERGED / weights.name))


def _starts_over(config: Config, *, fresh: bool) -> bool:
    """Return whether all stages are run again: on request, or if all are finished and the broker is embedded."""
    stages = [earlier_run(config.of_stage(index).run.path) for index in range(len(config.stages))]
    if all(stage == "none" for stage in stages):
        return False
    return fresh or (config.broker.kind == "embedded" and all(stage == "finished" for stage in stages))


def _result(config: Config, name: str, model: str) -> dict[str, Any]:
    report = json.loads((config.run.path / REPORT).read_text("utf-8"))
    copied = ("steps", "wall_s", "accuracy", "held_out", "learning")
    return {
        "name": name,
        "folder": str(config.run.path),
        "mode": config.run.mode,
        **{key: report[key] for key in copied if key in report},
        "started_from": config.policy.model,
        "weights": model,
    }


def _describe_result(result: dict[str, Any]) -> str:
    text = f"stage {result['name']}: {result['steps']} steps in {result['wall_s']:.0f} s"
    # A stage that an earlier version of this program finished has no "held_out".
    if change := change_text(result.get("held_out", NOT_EVALUATED)):
        text += f", {change}"
    elif not result["accuracy"].get("scored", True):
        text += f", held-out tasks {NOT_SCORED}"
    return text


def _write(path: Path, results: list[dict[str, Any]]) -> None:
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    os.replace(partial, path)
